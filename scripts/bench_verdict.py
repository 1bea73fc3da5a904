"""Measure on simulated texts, with a known difference of two systems, how often its
interval holds it, and how often the verdict is right. Prints the tables of
docs/verdict.md."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import typer
from wasabi import msg

from instaner.intervals import Bootstrap, Difference
from instaner.scores import get_prf
from instaner.verdict import Decision, Rules, decide

TEXTS = 144
MANY = 2_000_000  # texts, to know what is true


def simulate(
    random: np.random.Generator,
    n: int,
    *,
    rate: float,
    found: tuple[float, float],
    spurious: tuple[float, float],
    alike: float = 0.6,
) -> np.ndarray:
    """Counts of two systems, of shape (texts, 2, 4). Some texts have many entities, and
    what one system misses, the other is likely to miss.
    """
    wanted = random.poisson(rate * random.gamma(2, 0.5, size=n))
    texts = np.repeat(np.arange(n), wanted)
    luck = random.random(len(texts))
    other = np.where(random.random(len(texts)) < alike, luck, random.random(len(texts)))
    counts = np.zeros((n, 2, 4))
    for row, (draw, share, rest) in enumerate(
        zip((luck, other), found, spurious, strict=True)
    ):
        right = np.bincount(texts, draw < share, minlength=n)
        counts[:, row] = np.stack(
            [right, random.poisson(rest, n), wanted - right, right], axis=1
        )
    return counts


def get_difference(counts: np.ndarray) -> float:
    f = get_prf(counts.sum(axis=0))[:, 2]
    return float(f[1] - f[0])


# Teachers and students on few texts and many, of frequent labels and rare ones.
WORLDS = {
    "far": (TEXTS, {"rate": 2.2, "found": (0.97, 0.8), "spurious": (0.05, 0.3)}),
    "near": (TEXTS, {"rate": 2.2, "found": (0.85, 0.83), "spurious": (0.3, 0.3)}),
    "rare": (TEXTS, {"rate": 0.15, "found": (0.9, 0.85), "spurious": (0.02, 0.02)}),
    "few": (40, {"rate": 2, "found": (0.9, 0.85), "spurious": (0.1, 0.1)}),
    "many": (1000, {"rate": 2, "found": (0.9, 0.88), "spurious": (0.2, 0.2)}),
}

# Students of a teacher that finds 0.85, around the margin.
SHARES = (0.8, 0.815, 0.83, 0.845, 0.86)


def make_world(share: float) -> dict[str, Any]:
    """RETURNS (Dict[str, Any]): Settings of a student that finds a share."""
    return {"rate": 2.2, "found": (0.85, share), "spurious": (0.2, 0.2)}


def know(settings: dict[str, Any]) -> float:
    """RETURNS (float): The difference that is true."""
    return get_difference(simulate(np.random.default_rng(1), MANY, **settings))


def draw(n: int, settings: dict[str, Any], runs: int) -> Iterator[Difference]:
    """YIELDS (Difference): What is measured on n texts, again and again."""
    random = np.random.default_rng(2)
    for seed in range(runs):
        counts = simulate(random, n, **settings)
        (found,) = Bootstrap(n, seed=seed).compare(counts[:, :1], counts[:, 1:])
        if found is not None:
            yield found


def main(runs: int = 1000) -> None:
    """Print the tables, in Markdown."""
    msg.text("| texts | entities | true difference | interval holds it | its width |")
    msg.text("|---:|---:|---:|---:|---:|")
    for n, settings in WORLDS.values():
        true = know(settings)
        found = list(draw(n, settings, runs))
        held = sum(f.low <= true <= f.high for f in found) / len(found)
        width = sum(f.high - f.low for f in found) / len(found)
        entities = round(n * settings["rate"])
        msg.text(f"| {n:,} | {entities:,} | {true:+.3f} | {held:.1%} | {width:.3f} |")
    msg.text("")
    msg.text("| true difference | swap | not enough gold | keep the LLM |")
    msg.text("|---:|---:|---:|---:|")
    for share in SHARES:
        settings = make_world(share)
        decisions = Counter(
            decide(found, Rules(), n_texts=TEXTS, silver=False).decision
            for found in draw(TEXTS, settings, runs)
        )
        order = (Decision.SWAP, Decision.UNDECIDED, Decision.KEEP)
        shares = " | ".join(f"{decisions[d] / runs:.1%}" for d in order)
        msg.text(f"| {know(settings):+.3f} | {shares} |")


if __name__ == "__main__":
    typer.run(main)

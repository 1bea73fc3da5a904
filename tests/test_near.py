import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from instaner.near import NEAR, NearFinder, normalise

_ROOT = Path(__file__).resolve().parent.parent
_SKILLET = "Nothing beats a cast iron skillet."
_CJK = (
    "用鑄鐵鍋煎牛排最好吃，洋蔥和大蒜也要先炒香，再加一點鹽和黑胡椒調味就可以上桌了。"
)


def _shingle(text: str) -> set[str]:
    normal = normalise(text)
    return {normal[i : i + 5] for i in range(max(1, len(normal) - 4))}


def _get_jaccard(one: str, other: str) -> float:
    ours, theirs = _shingle(one), _shingle(other)
    return len(ours & theirs) / len(ours | theirs)


def _make_finder(*texts: str) -> NearFinder:
    finder = NearFinder()
    for number, text in enumerate(texts):
        finder.add(f"t{number}", text)
    return finder


def _make_texts(count: int, *, seed: int) -> list[str]:
    """Sentences, of which half are others with some words put in for theirs."""
    rng = random.Random(seed)
    words = [
        "".join(rng.choices("aeiklmnorstu", k=rng.randint(1, 9))) for _ in range(400)
    ]
    texts = [" ".join(rng.choices(words, k=15)) for _ in range(count // 2)]
    for text in texts[: count - len(texts)]:
        edited = text.split()
        for place in rng.sample(range(15), rng.randint(1, 4)):
            edited[place] = rng.choice(words)
        texts.append(" ".join(edited))
    return texts


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (_SKILLET, "t0"),
        ("nothing beats... a CAST-IRON skillet!", "t0"),
        ("Nothing beats a good cast iron skillet.", "t0"),
        ("A cast iron skillet is heavy.", None),
        ("Thanks, that is good to know.", None),
        ("", None),
        ("!?", None),
    ],
)
def test_near_texts_are_found(text: str, found: str | None) -> None:
    assert _make_finder(_SKILLET, "Thanks a lot.").find(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "!?",
        "🍳",
        "👨‍👩‍👧🍜🍣",
        "wok",
        "Wok!",
        "鍋",
        _CJK,
        "a\0b",
        "\ud800",
        "é" * 9999,
    ],
)
def test_any_text_is_found_again(text: str) -> None:
    finder = _make_finder(_SKILLET, "🥘", "pan", "鑊", text)
    assert finder.find(text) == "t4"


@pytest.mark.parametrize("text", ["", "🍳", "pot", "煎", "\0"])
def test_short_texts_are_told_apart(text: str) -> None:
    assert _make_finder("!?", "🥘", "wok", "鑊").find(text) is None


def test_near_copy_without_spaces_is_found() -> None:
    assert _make_finder(_SKILLET, _CJK).find(_CJK.replace("大蒜", "青蔥")) == "t1"


@pytest.mark.parametrize(
    ("text", "other"),
    [("मेरे पिता का बाग", "मेरी पीती की बेगे"), ("ต้นไม้ในบ้านของพ่อ", "ตันไมในบานของพอ")],
)
def test_vowel_signs_are_of_the_word(text: str, other: str) -> None:
    assert set(normalise(text)) == set(text)
    assert _make_finder(other).find(text) is None


def test_composed_and_decomposed_are_alike() -> None:
    assert normalise("Cafe\u0301!") == normalise("caf\u00e9") == "caf\u00e9"


def test_nothing_is_found_among_no_texts() -> None:
    assert NearFinder().find("wok") is None


def test_nearest_is_found() -> None:
    text = "The lid of the old cast iron pot is on the lower shelf at the left."
    near, nearest = text.replace("old", "new big"), text.replace("old", "odd")
    assert _make_finder(near, nearest).find(text) == "t1"
    assert _make_finder(nearest, near).find(text) == "t0"


def test_of_equals_the_first_is_found() -> None:
    assert _make_finder(_SKILLET, _SKILLET.upper()).find(_SKILLET) == "t0"


@pytest.mark.parametrize("seed", range(3))
def test_finder_agrees_with_an_exact_search(seed: int) -> None:
    texts = _make_texts(500, seed=seed)
    finder = NearFinder()
    near = found = 0
    for number, text in enumerate(texts):
        most = max((_get_jaccard(text, other) for other in texts[:number]), default=0)
        other = finder.find(text)
        if other is not None:
            assert _get_jaccard(text, texts[int(other)]) >= NEAR
        near += most >= NEAR
        found += other is not None
        finder.add(str(number), text)
    assert near > 50
    assert found >= 0.97 * near


@settings(deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
@example("", "\0")
def test_what_is_found_is_near(one: str, other: str) -> None:
    found = _make_finder(one).find(other)
    assert found is None or _get_jaccard(one, other) >= NEAR
    assert found is not None or normalise(one) != normalise(other)


def test_finder_does_not_depend_on_the_run() -> None:
    code = (
        "from tests.test_near import _make_finder, _make_texts\n"
        "texts = _make_texts(100, seed=5)\n"
        "finder = _make_finder(*texts[:50])\n"
        "print([finder.find(text) for text in texts], dict(finder._index))"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=_ROOT,
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("kind", ["varied", "copies", "templates"])
def test_benchmark_holds_at_a_small_size(kind: str, tmp_path: Path) -> None:
    command = [sys.executable, "scripts/bench_near.py", "--n", "1000", "--kind", kind]
    output = tmp_path / "bench.json"
    done = subprocess.run(
        [*command, "--json", str(output)], cwd=_ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(output.read_text())
    assert found["planted"] > 100
    assert found["false"] == 0


def test_benchmark_names_a_wrong_setting() -> None:
    command = [sys.executable, "scripts/bench_near.py", "--n", "0"]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, "--n 0 has to be 1 or more" in line) == (1, True)

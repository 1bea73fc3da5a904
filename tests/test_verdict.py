from pathlib import Path

import pytest

from instaner.errors import InstaNERError
from instaner.intervals import Difference
from instaner.settings import read_section
from instaner.verdict import Decision, Rules, Verdict, decide


def _decide(
    low: float, high: float, *, margin: float = 0.02, silver: bool = False, n: int = 100
) -> Verdict:
    middle = (low + high) / 2
    found = Difference(middle, low, high, 0.5, (high - low) / 4)
    return decide(found, Rules(margin=margin), n_texts=n, silver=silver)


@pytest.mark.parametrize(
    ("low", "high", "decision"),
    [
        (-0.01, 0.05, Decision.SWAP),
        (0.01, 0.05, Decision.SWAP),
        (-0.2, -0.1, Decision.KEEP),
        (-0.2, -0.01, Decision.UNDECIDED),
        (-0.05, 0.05, Decision.UNDECIDED),
        (-0.02, 0.05, Decision.UNDECIDED),  # above the margin, not at it
    ],
)
def test_interval_decides(low: float, high: float, decision: Decision) -> None:
    assert _decide(low, high).decision is decision


def test_margin_decides() -> None:
    assert _decide(-0.2, -0.1, margin=0.3).decision is Decision.SWAP


def test_texts_are_asked_for_only_where_they_would_decide() -> None:
    assert _decide(-0.01, 0.05).more_texts is None
    assert _decide(-0.2, -0.1).more_texts is None
    assert _decide(-0.06, 0.05).more_texts is not None


def test_wider_intervals_ask_for_more_texts() -> None:
    narrow, wide = _decide(-0.05, 0.05).more_texts, _decide(-0.1, 0.1).more_texts
    assert narrow is not None
    assert wide is not None
    assert 100 < narrow < wide


def test_number_of_texts_is_that_of_a_power_table() -> None:
    # A standard error of 0.025 on 100 texts, 0.05 from the margin: 2.8 standard errors
    # of n texts have to be 0.05, so n = 100 * (2.8 * 0.025 / 0.05) ** 2 = 196.
    found = Difference(0.03, -0.03, 0.09, 0.5, 0.025)
    assert decide(found, Rules(), n_texts=100, silver=False).more_texts == 97


def test_what_nothing_would_decide_asks_for_none() -> None:
    verdict = _decide(-0.07, 0.03)
    assert verdict.more_texts is None
    assert "no number of texts" in verdict.reason


def test_nothing_to_compare_is_undecided() -> None:
    verdict = decide(None, Rules(), n_texts=9, silver=False)
    assert (verdict.decision, verdict.more_texts) == (Decision.UNDECIDED, None)


@pytest.mark.parametrize(("low", "high"), [(-0.01, 0.05), (-0.2, -0.1)])
def test_silver_decides_nothing(low: float, high: float) -> None:
    verdict = _decide(low, high, silver=True)
    assert verdict.decision is Decision.UNDECIDED
    assert "by hand" in verdict.reason


@pytest.mark.parametrize(("low", "high"), [(-0.01, 0.05), (-0.2, -0.1), (-0.1, 0.1)])
def test_reason_holds_for_any_score(low: float, high: float) -> None:
    reason = _decide(low, high).reason
    assert reason.startswith("The difference is ")
    assert "F1" not in reason


def test_rules_stand_in_a_config(tmp_path: Path) -> None:
    path = tmp_path / "report.cfg"
    path.write_text("[verdict]\nmargin = 0.05\n", "utf8")
    assert read_section(Rules, "verdict", path) == Rules(margin=0.05)
    assert read_section(Rules, "verdict", path, margin=0.1, seed=None).margin == 0.1


def test_without_a_section_rules_are_the_default(tmp_path: Path) -> None:
    path = tmp_path / "report.cfg"
    path.write_text("[other]\na = 1\n", "utf8")
    assert read_section(Rules, "verdict", path) == Rules()
    assert read_section(Rules, "verdict", None) == Rules()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "margn = 0.05",
            r"report.cfg: \[verdict\] margn: .*only annotators, margin",
        ),
        ('margin = "a lot"', r"report.cfg: \[verdict\] margin: .*found 'a lot'"),
        ("margin = 1.5", r"less than 1, found 1.5"),
        ("resamples = 3", "100"),
    ],
)
def test_bad_rules_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "report.cfg"
    path.write_text(f"[verdict]\n{line}\n", "utf8")
    with pytest.raises(InstaNERError, match=message):
        read_section(Rules, "verdict", path)

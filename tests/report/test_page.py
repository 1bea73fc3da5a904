import math
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import srsly

from instaner.errors import InstaNERError
from instaner.report.figures import draw_reliability
from instaner.report.page import make_report, read_corpus

from .conftest import Report

pytest.importorskip("matplotlib")

_NUMBER = re.compile(r"(?<![\w.,^-])\d[\d,]*(?:\.\d+)?(?![\w^])")
# Percent and milliseconds, MB and GB.
_UNITS = (1, 100, 1000, 1e-6, 1e-9)
_EMPTY = ("br", "img", "link", "meta", "path", "use", "rect", "input", "wbr")
_ALL = ["whole", "categories", "several"]


class _Reader(HTMLParser):
    """Reads a page's text, without what was given as text: of the corpus, of configs,
    names, and without the scales of figures.
    """

    def __init__(self, *, skip: bool = True) -> None:
        super().__init__()
        self.skip = skip
        self.text: list[str] = []
        self.said: list[str] = []
        self.tags: list[str] = []
        self._skipped = 0
        self._said = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        classes = (values.get("class") or "").split()
        if tag in _EMPTY:
            return
        given = {"given", "title"} & {*classes} or "axis_" in (values.get("id") or "")
        if self._skipped or tag == "style" or (self.skip and (given or tag == "title")):
            self._skipped += 1
        if self._said or "said" in classes:
            self._said += 1
            if self._said == 1:
                self.said.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, Any]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self._skipped = max(0, self._skipped - 1)
        self._said = max(0, self._said - 1)

    def handle_data(self, data: str) -> None:
        if self._said:
            self.said[-1] += data
        elif not self._skipped:
            self.text.append(data)


def _make(report: Report, folder: Path) -> str:
    comparison = report.pop("comparison")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_report(comparison, folder, **report)
    return (folder / "index.html").read_text("utf8")


def _read(page: str, *, skip: bool = True) -> _Reader:
    reader = _Reader(skip=skip)
    reader.feed(page)
    return reader


def _walk(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _walk(part)
    else:
        yield value


def _find_unknown(text: str, values: list[Any]) -> list[str]:
    """RETURNS (List[str]): Numbers of a text that are none of the values, rounded."""
    known = [abs(v) for v in values if isinstance(v, int | float)]
    unknown = []
    for found in _NUMBER.findall(text):
        number = float(found.replace(",", ""))
        half = 0.5 * 10 ** -len(found.partition(".")[2])
        if not any(
            math.isclose(value * unit, number, rel_tol=1e-9, abs_tol=half * 1.0001)
            for value in known
            for unit in _UNITS
        ):
            unknown.append(found)
    return unknown


@pytest.mark.parametrize("report", _ALL, indirect=True)
def test_every_number_is_in_the_json(report: Report, folder: Path) -> None:
    reader = _read(_make(report, folder))
    values = [*_walk(srsly.read_json(folder / "comparison.json"))]
    text = " ".join(reader.text)
    assert len(_NUMBER.findall(text)) > 150
    assert _find_unknown(text, values) == []
    strings = {value for value in values if isinstance(value, str)}
    assert reader.said
    assert {*reader.said} <= strings
    markdown = (folder / "report.md").read_text("utf8")
    for said in strings:
        markdown = markdown.replace(said, "")
    assert len(_NUMBER.findall(markdown)) > 80
    assert _find_unknown(markdown, values) == []


def test_number_that_is_not_there_is_found() -> None:
    assert _find_unknown("0.174, 12.3% and 15 ms", [-0.1741, 0.1231, 0.0152]) == []
    assert _find_unknown("0.175 of 1,234", [-0.1741, 1235]) == ["0.175", "1,234"]


def test_one_dict_is_behind_all_files(report: Report, folder: Path) -> None:
    parts = {**report}
    page = _make(report, folder)
    written = srsly.read_json(folder / "comparison.json")
    title = "Does the student replace the LLM?"
    expected = {**parts.pop("comparison"), **parts, "title": title}
    assert {*written} == {*expected}
    assert [*_walk(written)] == [
        pytest.approx(v, abs=1e-9) if isinstance(v, float) else v
        for v in _walk([expected[key] for key in written])
    ]
    for name in ("index.html", "report.md"):
        assert "0.174 below (0.12 to 0.23)" in (folder / name).read_text("utf8")
    assert sorted(path.name for path in folder.iterdir()) == [
        "comparison.json",
        "index.html",
        "report.md",
    ]
    assert re.findall(r"""(?:src|href)=["'](?!#)([^"']*)""", page) == [
        "comparison.json"
    ]
    assert "@import" not in page
    assert "http" not in page.replace("http://www.w3.org/", "").partition("<main>")[0]


def test_same_report_same_bytes(whole: Report, tmp_path: Path) -> None:
    pages = [_make({**whole}, tmp_path / name) for name in ("one", "other")]
    assert pages[0] == pages[1]


@pytest.mark.parametrize("report", _ALL, indirect=True)
def test_figures_take_the_colours_of_the_page(report: Report, folder: Path) -> None:
    is_cats = report["comparison"]["gold"].get("attr") == "cats"
    page = _make(report, folder)
    figures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(figures) == 4 + is_cats
    assert not re.search(r"#[0-9a-f]{6}", "".join(figures))
    assert "var(--system-1)" in figures[0]
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len({*ids})
    for used in re.findall(r'(?:href="|url\()#([^")]+)', page):
        assert used in ids


def _decide(report: Report, **verdict: Any) -> None:
    report["comparison"]["verdict"]["student"]["all"] = verdict


@pytest.mark.parametrize(
    ("verdict", "difference", "interval", "expected"),
    [
        ("keep", -0.174, [-0.229, -0.119], "F1 is 0.174 below (0.12 to 0.23)."),
        ("swap", -0.004, [-0.012, 0.005], "0.004 below (from 0.012 below to 0.005"),
        ("swap", 0.031, [0.012, 0.05], "Swap: the student’s F1 is 0.031 above (0.012"),
        ("undecided", -0.03, [-0.1, 0.05], "gold: about 320 more texts would decide."),
        ("keep", -0.174, None, "F1 is 0.174 below."),
        ("keep", None, None, "Keep the LLM for now: the F1 of student is 0.795."),
    ],
)
def test_verdict_in_a_sentence(
    report: Report,
    folder: Path,
    verdict: str,
    difference: float | None,
    interval: list[float] | None,
    expected: str,
) -> None:
    _decide(report, decision=verdict, more_texts=320, reason="")
    pair = {"difference": difference, "interval": interval}
    report["comparison"]["paired"]["student"]["all"] = pair
    comparison = report.pop("comparison")
    assert expected in make_report(comparison, folder, **report)


@pytest.mark.parametrize(
    ("report", "number", "corpus"),
    [("whole", 13, "Spans by what the vo"), ("categories", 15, "Categories by what t")],
    indirect=["report"],
)
def test_silver_is_marked_wherever_it_counts(
    report: Report, folder: Path, number: int, corpus: str
) -> None:
    report["comparison"]["gold"]["silver"] = True
    page = _make(report, folder)
    assert "not how right it is" in page
    captions = re.findall(r"<(figcaption|caption).*?>(.*?)</\1>", page, re.DOTALL)
    bare = [text.strip() for _, text in captions if "Silver" not in text]
    assert len(captions) == number
    assert [re.sub("<.*?>", "", text).strip()[:20] for text in bare] == [
        "Cost, speed and size",
        corpus,
    ]
    assert (folder / "report.md").read_text("utf8").count("(silver gold)") == 4


def test_gold_by_people_is_not_marked(report: Report, folder: Path) -> None:
    assert "silver gold" not in _make(report, folder).lower()


@pytest.mark.parametrize("report", ["hostile", "hostile_categories"], indirect=True)
def test_markup_is_escaped(report: Report, folder: Path) -> None:
    page = _make(report, folder)
    reader = _read(page, skip=False)
    assert not {"script", "img"} & {*reader.tags}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in (folder / "report.md").read_text("utf8")


@pytest.mark.parametrize(
    ("report", "verdict", "other"),
    [("categories", "accuracy", "F1"), ("several", "F1", "accuracy")],
    indirect=["report"],
)
def test_words_of_categories(
    report: Report, folder: Path, verdict: str, other: str
) -> None:
    said = make_report(report.pop("comparison"), folder, **report)
    assert said.startswith(f"Keep the LLM for now: the student’s {verdict} is 0.")
    text = " ".join(_read((folder / "index.html").read_text("utf8")).text)
    assert f"Difference in {verdict}" in text
    assert f"the {verdict} of the CNN student would be" in text
    assert f"Difference in {other}" not in text
    assert not re.search("(?i)entit|span|boundar", text)


def _tabulate(page: str, caption: str) -> list[list[str]]:
    """RETURNS (List[List[str]]): The texts of a table's cells, row by row."""
    table = page.partition(f"<caption><span>{caption}")[2].partition("</table>")[0]
    table = table.partition("</caption>")[2]
    rows = [re.split(r"</t[hd]>", row)[:-1] for row in table.split("</tr>")[:-1]]
    return [[re.sub("<small.*|<.*?>", "", c).strip() for c in row] for row in rows]


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("categories", ["Accuracy", "Macro F1", "Balanced accuracy"]),
        ("several", ["F1", "Precision", "Recall", "Macro F1", "All labels right"]),
    ],
    indirect=["report"],
)
def test_scores_of_categories(
    report: Report, folder: Path, expected: list[str]
) -> None:
    rows = _tabulate(_make(report, folder), "All labels together")
    names = [name for name, *_ in rows[1:]]
    assert names == [*expected, "Calibration error (ECE)"]


@pytest.mark.parametrize(
    ("report", "errors", "columns"),
    [
        ("categories", ["Wrong category"], []),
        (
            "several",
            ["Wrong category", "Missed category", "Spurious category"],
            ["nothing"],
        ),
    ],
    indirect=["report"],
)
def test_only_errors_that_occur_are_shown(
    report: Report, folder: Path, errors: list[str], columns: list[str]
) -> None:
    labels = report["comparison"]["labels"]
    page = _make(report, folder)
    assert [name for name, *_ in _tabulate(page, "Errors by kind")[1:]] == errors
    matrix = _tabulate(page, "Texts of the gold")
    assert matrix[0] == ["Gold", *labels, *columns]
    assert [name for name, *_ in matrix[1:]] == [*labels, *columns]


@pytest.mark.parametrize("report", ["categories"], indirect=True)
def test_texts_are_shown_with_their_categories(report: Report, folder: Path) -> None:
    row = report["comparison"]["differences"][0]
    report["comparison"]["differences"] = [row]
    row["text"], row["systems"]["student"] = "a & b", []
    page = _make(report, folder)
    seen = page.partition('<dl class="seen">')[2].partition("</dl>")[0]
    label = row["gold"][0][2]
    chip = rf'<dd dir="auto"><mark class="e\d chip">{label}</mark></dd>'
    expected = [
        r'<dt>Text</dt><dd dir="auto">a &amp; b</dd>',
        f"<dt>Gold</dt>{chip}",
        r"<dt>teacher</dt>.*as in the gold.*",
        r'<dt>student</dt><dd dir="auto">nothing</dd>',
    ]
    for line, pattern in zip(seen.strip().splitlines(), expected, strict=True):
        assert re.fullmatch(pattern, line)


def _draw_bins(*bins: tuple[float, float, int], system: str = "student") -> str:
    rows = [dict(zip(("score", "share", "count"), row, strict=True)) for row in bins]
    systems: Report = {"teacher": {"calibration": None}, "student": {}}
    systems[system]["calibration"] = {"ece": 0.1, "bins": rows}
    return draw_reliability(systems, {"teacher": 0, "student": 1})


def test_reliability_is_drawn_bin_by_bin() -> None:
    svg = _draw_bins((0.25, 0.5, 4), (0.75, 0.5, 16))
    # Colours and marks are those of the system, and only of those drawn.
    assert "var(--system-1)" in svg
    assert "var(--system-0)" not in svg
    assert "teacher" not in svg
    places = [
        (float(x), float(y))
        for x, y in re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"[^>]*system-1', svg)
    ]
    (left, up), (right, same) = places[:2]
    assert left < right
    assert up == same


@pytest.mark.parametrize("bins", [[], [(None, None, 3)]])
def test_reliability_of_nothing_is_not_drawn(bins: list[Any]) -> None:
    assert _draw_bins(*bins) == ""


def _drop_parts(report: Report) -> None:
    for part in ("corpus", "costs", "curve", "run"):
        del report[part]


def _drop_reference(report: Report) -> None:
    report["comparison"]["reference"] = None
    report["comparison"].update(paired={}, verdict={})


def _keep_one_system(report: Report) -> None:
    _drop_reference(report)
    systems = report["comparison"]["systems"]
    report["comparison"].update(systems={"student": systems["student"]}, differences=[])


def _set_labels(report: Report, labels: list[str]) -> None:
    comparison = report["comparison"]
    comparison["labels"] = labels
    comparison["support"] = dict.fromkeys(labels, 3)
    for system in comparison["systems"].values():
        types = system["ents_per_type"]
        system["ents_per_type"] = {label: types["DISH"] for label in labels}
        if "confusion" in system:
            system["confusion"] = {
                one: {other: 1 for other in [*labels, ""]} for one in labels
            }
    for part in ("paired", "verdict"):
        for student in comparison[part].values():
            student["per_type"] = dict.fromkeys(labels, student["all"])
    comparison["differences"] = []


def _empty(report: Report) -> None:
    """No entities at all, so that no score is defined."""
    _set_labels(report, [])
    report["comparison"]["gold"]["entities"] = 0
    for system in report["comparison"]["systems"].values():
        none = {"p": None, "r": None, "f": None}
        system.update(
            ents_p=None,
            ents_r=None,
            ents_f=None,
            ents_acc=None,
            token_acc=1.0,
            ents_partial=none,
            interval=none,
            errors=dict.fromkeys(system["errors"], 0),
            error_examples={},
            confusion={},
        )
    nothing = {"difference": None, "interval": None, "p_value": None}
    verdict = {"decision": "undecided", "more_texts": None, "reason": "No entities."}
    report["comparison"]["paired"] = {"student": {"all": nothing, "per_type": {}}}
    report["comparison"]["verdict"] = {"student": {"all": verdict, "per_type": {}}}
    report["curve"].update(points=[], fit=None)
    report["corpus"].update(labels={}, agreement={"f1": None, "alpha": None})


def _blank(value: Any) -> Any:
    """RETURNS (Any): The same without a number in it."""
    if isinstance(value, dict):
        return {key: _blank(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_blank(part) for part in value]
    return float("nan") if isinstance(value, float) else value


def _blank_parts(report: Report) -> None:
    report.update(_blank(report))


def _drop_fit(report: Report) -> None:
    report["curve"]["fit"] = None
    report["curve"]["why"] = "Two points are too few."


def _use_old_scores(report: Report) -> None:
    """What other parts do not say: systems with nothing but their scores."""
    keys = ("ents_p", "ents_r", "ents_f", "ents_per_type")
    for name, system in report["comparison"]["systems"].items():
        report["comparison"]["systems"][name] = {key: system[key] for key in keys}
    for key in ("paired", "verdict", "rules", "support", "differences", "labels"):
        del report["comparison"][key]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_drop_parts, "Keep the LLM"),
        (_drop_reference, "there is nothing to compare with"),
        (_keep_one_system, "there is nothing to compare with"),
        (lambda report: _set_labels(report, ["ONE"]), "Label by label"),
        (lambda report: _set_labels(report, [f"L{k}" for k in range(40)]), "L39"),
        (_empty, "there is no label to"),
        (_blank_parts, "Keep the LLM"),
        (_drop_fit, "Two points are too few."),
        (_use_old_scores, "No verdict"),
    ],
)
def test_what_is_missing_is_left_out(
    report: Report, folder: Path, change: Callable[[Report], None], expected: str
) -> None:
    change(report)
    page = _make(report, folder)
    text = " ".join(_read(page).text)
    assert expected in page
    for page_text in (text, (folder / "report.md").read_text("utf8")):
        assert not re.search(r"\b(None|nan|NaN|null|Undefined)\b", page_text)
    values = [*_walk(srsly.read_json(folder / "comparison.json"))]
    assert _find_unknown(text, values) == []


def test_comparison_without_systems(tmp_path: Path) -> None:
    with pytest.raises(InstaNERError, match="names no systems"):
        make_report({"systems": {}}, tmp_path / "report")


def test_other_files_are_not_replaced(report: Report, folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(InstaNERError, match=r"thesis\.txt"):
        _make(report, folder)


def test_report_without_the_extra(
    report: Report, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InstaNERError, match=r"pip install 'instaner\[figures\]'"):
        _make(report, folder)
    assert not folder.exists()


def test_corpus_from_what_is_beside_it(tmp_path: Path) -> None:
    standings = [
        {"label": "DISH", "standing": "trusted", "count": 5},
        {"label": "DISH", "standing": "disputed", "count": 2},
    ]
    agreement = {"f1": 0.9, "alpha": None, "pairs": []}
    meta = {"texts": 9, "standings": standings, "agreement": agreement}
    srsly.write_json(
        tmp_path / "annotated.meta.json", {**meta, "disputed_share": 0.2857}
    )
    srsly.write_json(tmp_path / "generated.meta.json", {"texts": 11, "briefs": 4})
    corpus = read_corpus(tmp_path / "annotated", tmp_path / "generated.jsonl")
    assert corpus["labels"] == {"DISH": {"trusted": 5, "disputed": 2}}
    assert corpus["texts"] == 9
    assert corpus["agreement"] == agreement
    assert corpus["disputed_share"] == 0.2857
    assert corpus["generated"]["texts"] == 11


def test_corpus_of_which_nothing_is_known(tmp_path: Path) -> None:
    with pytest.raises(InstaNERError, match=r"annotated\.meta\.json"):
        read_corpus(tmp_path / "annotated")

import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
import spacy
import srsly
from spacy.language import Language

from instaner import variety
from instaner.corpus import GENERATOR, Text, read_texts
from instaner.errors import InstaNERError
from instaner.generate import generate
from instaner.pipeline import load_teacher
from instaner.targets import make_mark
from instaner.variety import Languages, Mentions, Variety, draw, measure
from instaner.vote import Offsets

from .conftest import ROOT

_ENGLISH = "Could you tell me where I can buy a good iron pan?"
_GERMAN = "Kannst du mir sagen, wo ich eine gute Pfanne kaufen kann?"
_JAPANESE = "いい鉄のフライパンはどこで買えますか?"
_PORTUGUESE = "Onde posso comprar uma boa frigideira de ferro?"
_DUTCH = "Waar kan ik een goede gietijzeren pan kopen?"
_SVG = "{http://www.w3.org/2000/svg}"


def _make_text(text: str, *spans: Offsets) -> Text:
    return Text(text, text, text, "train", {GENERATOR: list(spans)})


def _make_texts(*texts: str) -> list[Text]:
    return [_make_text(text) for text in texts]


@pytest.fixture
def measured(nlp: Language) -> Variety:
    texts = [
        _make_text("Fry rice in a wok", (4, 8, "FOOD"), (14, 17, "TOOL")),
        _make_text("Rice or  rice?", (0, 4, "FOOD"), (9, 13, "FOOD")),
        _make_text("fried  rice , please", (0, 11, "FOOD")),
        _make_text("Fried rice!", (0, 10, "FOOD")),
        _make_text("why"),
    ]
    return measure(texts, nlp)


def _read_labels(path: Path) -> list[str]:
    return [
        "".join(el.itertext()) for el in ElementTree.parse(path).iter(f"{_SVG}text")
    ]


def test_distinct_ngrams_of_two_texts(nlp: Language) -> None:
    # 6 tokens: a, b, c; 4 pairs: ab, ba, bc; 2 triples: aba, abc.
    result = measure(_make_texts("a b A", "a  b\nc"), nlp)
    assert (result.texts, result.tokens) == (2, 6)
    assert result.distinct == [0.5, 0.75, 1]


def test_texts_without_tokens_have_no_ngrams(nlp: Language) -> None:
    assert measure(_make_texts("", " "), nlp).distinct == [0, 0, 0]


def test_distinct_of_few_ngrams_cannot_be_compared(nlp: Language) -> None:
    assert measure(_make_texts("a b"), nlp).distinct_drawn == [None, None, None]


def test_distinct_among_drawn(nlp: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two of a, a, b, c: in one of six draws they are alike.
    monkeypatch.setattr(variety, "DRAWN", 2)
    result = measure(_make_texts("a a b c"), nlp)
    assert result.distinct_drawn[0] == pytest.approx((5 * 2 + 1) / 6 / 2, abs=1e-4)


def test_distinct_among_drawn_does_not_fall_with_size(nlp: Language) -> None:
    few, many = (
        measure(_make_texts(*["one of a hundred and fifty copies"] * n), nlp)
        for n in (1000, 4000)
    )
    assert many.distinct[0] == pytest.approx(few.distinct[0] / 4, abs=1e-4)
    assert many.distinct_drawn == few.distinct_drawn


def test_mentions_are_told_apart_without_case_and_space(measured: Variety) -> None:
    assert measured.mentions == {
        "FOOD": Mentions(5, 2, 0.8333, [("rice", 3), ("fried rice", 2)]),
        "TOOL": Mentions(1, 1, 0.1667, [("wok", 1)]),
    }


def test_entities_of_a_text(measured: Variety) -> None:
    assert measured.without_entities == 0.2
    assert measured.entities.bins == [(0, 0, 1), (1, 1, 2), (2, 2, 2)]


def test_lengths_are_spread(measured: Variety) -> None:
    lengths = measured.lengths  # 1, 3, 4, 4, 5
    assert (lengths.min, lengths.q1, lengths.median) == (1, 3, 4)
    assert (lengths.q3, lengths.max) == (4, 5)
    assert sum(n for *_, n in lengths.bins) == measured.texts


def test_one_long_text_does_not_fill_a_bin_with_all_others(nlp: Language) -> None:
    texts = ["a " * (k % 10 + 1) for k in range(200)]
    bins = measure(_make_texts(*texts, "a " * 5000), nlp).lengths.bins
    assert bins == [*[(k, k, 20) for k in range(1, 11)], (11, 5000, 1)]


def test_long_lengths_share_bins(nlp: Language) -> None:
    bins = measure(_make_texts(*["a " * k for k in range(1, 100)]), nlp).lengths.bins
    assert len(bins) <= 21
    assert sum(n for *_, n in bins) == 99
    assert all(one[1] + 1 == other[0] for one, other in pairwise(bins))


def test_no_texts(nlp: Language) -> None:
    with pytest.raises(InstaNERError, match="no texts to measure"):
        measure([], nlp)


def test_marks_of_others_than_the_writer_do_not_count(nlp: Language) -> None:
    text = Text("a", "wok", "a", "train", {"human": [(0, 3, "TOOL")]})
    assert measure([text], nlp).mentions == {}


def test_json(measured: Variety) -> None:
    values = srsly.json_loads(srsly.json_dumps(measured.to_json()))
    assert values["mentions"]["FOOD"]["top"][0] == ["rice", 3]


def test_language_of_texts(nlp: Language) -> None:
    pytest.importorskip("py3langid")
    texts = _make_texts(
        _ENGLISH, f"Hello! {_ENGLISH}", _GERMAN, _JAPANESE, "ok", "123 " * 9
    )
    assert measure(texts, nlp).languages == Languages(
        "en", 0.5, 2, {"en": 2, "de": 1, "ja": 1}
    )


@pytest.mark.parametrize(
    ("lang", "text"),
    [
        ("nl", _DUTCH),
        ("pt", _PORTUGUESE),
        ("nb", "Hvor kan jeg kjøpe ei god stekepanne av støpejern i byen?"),
        ("nn", "Kvar kan eg kjøpe ei god steikepanne av støypejarn i byen?"),
        ("sr", "Где могу да купим добар тигањ од ливеног гвожђа?"),
        ("zh", "請問我在哪裡可以買到一個好的鑄鐵鍋?謝謝大家的幫助。"),
    ],
)
def test_language_goes_by_the_code_of_spacy(lang: str, text: str) -> None:
    pytest.importorskip("py3langid")
    languages = measure(_make_texts(text), spacy.blank(lang)).languages
    assert languages is not None
    assert languages.share == 1


@pytest.mark.parametrize("lang", ["xx", "ti"])
def test_language_that_cannot_be_told(lang: str) -> None:
    pytest.importorskip("py3langid")
    languages = measure(_make_texts(_ENGLISH), spacy.blank(lang)).languages
    assert languages == Languages(lang, None, 0, {"en": 1})


def test_language_of_short_texts_only(nlp: Language) -> None:
    pytest.importorskip("py3langid")
    assert measure(_make_texts("wok"), nlp).languages == Languages("en", None, 1, {})


def test_language_without_the_extra(
    nlp: Language, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    assert measure(_make_texts(_ENGLISH), nlp).languages is None


def test_figures_without_the_extra(
    measured: Variety, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InstaNERError, match=r"pip install 'instaner\[figures\]'"):
        draw(measured, tmp_path / "variety.svg")
    assert not any(tmp_path.iterdir())


class TestDraw:
    @pytest.fixture(autouse=True)
    def _needs_matplotlib(self) -> Iterator[None]:
        pytest.importorskip("matplotlib")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield

    def test_same_figures_same_bytes(self, measured: Variety, tmp_path: Path) -> None:
        paths = [tmp_path / "one.svg", tmp_path / "other.svg"]
        for path in paths:
            draw(measured, path)
        assert paths[0].read_bytes() == paths[1].read_bytes()
        assert b"<dc:date>" not in paths[0].read_bytes()

    def test_figures_are_in_it(self, measured: Variety, tmp_path: Path) -> None:
        draw(measured, tmp_path / "variety.svg")
        labels = _read_labels(tmp_path / "variety.svg")
        assert {"FOOD", "5, 2 unique; 3 × rice", "Entities: 20.0% have none"} <= {
            *labels
        }

    def test_labels_of_any_script(self, measured: Variety, tmp_path: Path) -> None:
        names = ["料理", "$x_1$", "<b>&", "A\x07B", "調理器具と食材の非常に長いラベル"]
        numbers = count(9, -1)
        mentions = {
            name: Mentions(next(numbers), 1, 0.2, [(name, 1)]) for name in names
        }
        draw(replace(measured, mentions=mentions), tmp_path / "variety.svg")
        labels = _read_labels(tmp_path / "variety.svg")
        assert {*names[:3], "AB", "調理器具と食材の非常に長い…"} <= {*labels}
        assert "9, 1 unique; 1 × 料理" in labels

    @pytest.mark.parametrize("number", [1, 2, 20])
    def test_any_number_of_labels(
        self, measured: Variety, tmp_path: Path, number: int
    ) -> None:
        mention = Mentions(3, 1, 1 / number, [("wok", 3)])
        mentions = {f"LABEL_{k}": mention for k in range(number)}
        draw(replace(measured, mentions=mentions), tmp_path / "variety.svg")
        assert set(mentions) <= {*_read_labels(tmp_path / "variety.svg")}

    def test_no_entities(self, nlp: Language, tmp_path: Path) -> None:
        draw(measure(_make_texts("wok"), nlp), tmp_path / "variety.svg")
        assert "No entities are marked." in _read_labels(tmp_path / "variety.svg")

    def test_categories(self, nlp: Language, tmp_path: Path) -> None:
        texts = [
            _make_text("a wok", make_mark("TOOL")),
            _make_text("a pan", make_mark("TOOL")),
            _make_text("rice", make_mark("FOOD")),
            Text("hi", "hi", "hi", "train", {}),
        ]
        measured = measure(texts, nlp)
        assert measured.categories == {"TOOL": 2, "FOOD": 1}
        assert (measured.entities, measured.mentions) == (None, {})
        assert measured.without_entities is None
        draw(measured, tmp_path / "variety.svg")
        labels = _read_labels(tmp_path / "variety.svg")
        assert {"TOOL", "FOOD", "Texts by category"} <= {*labels}
        assert not any("ntities" in label for label in labels)

    def test_settings_of_matplotlib_stay(
        self, measured: Variety, tmp_path: Path
    ) -> None:
        import matplotlib

        before = dict(matplotlib.rcParams)
        draw(measured, tmp_path / "variety.svg")
        assert dict(matplotlib.rcParams) == before


def test_texts_of_the_demo(
    nlp: Language, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("py3langid")
    monkeypatch.chdir(ROOT)
    path = tmp_path / "generated.jsonl"
    generate(load_teacher("configs/generator.cfg"), Path("assets/briefs.jsonl"), path)
    result = measure(read_texts(path), nlp)
    assert result.texts == 1200
    assert {*result.mentions} == {"DISH", "EQUIPMENT", "INGREDIENT"}
    assert result.languages is not None
    assert result.languages.share is not None
    assert result.languages.share > 0.99
    assert result.languages.untold < 100

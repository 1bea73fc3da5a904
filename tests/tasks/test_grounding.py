import pytest
from hypothesis import given
from hypothesis import strategies as st
from spacy.lang.en import English
from spacy.tokens import Doc
from spacy.vocab import Vocab

from instaner.tasks.grounding import Mention, Reading, Status, ground

_VOCAB = Vocab()
_TOKENIZE = English()
_WORDS = ["Pad", "pad", "thai", "Thai", "wok", "-", "  ", "\n", "ß", "é", "."]


def _make_doc(*words: str) -> Doc:
    return Doc(_VOCAB, words=list(words))


def _ground(doc: Doc, *surfaces: str) -> tuple[list[tuple[int, int]], list[Status]]:
    spans, readings = ground(doc, [Mention(surface, "DISH") for surface in surfaces])
    return [(s.start, s.end) for s in spans], [r.status for r in readings]


def _normalise(text: str) -> str:
    return " ".join(text.split()).casefold()


@st.composite
def _docs_and_surfaces(draw: st.DrawFn) -> tuple[Doc, list[str]]:
    """Docs, and surfaces as an LLM gives them: of the text, or nearly so, or not."""
    text = draw(st.lists(st.sampled_from(_WORDS), max_size=12).map(" ".join))
    offsets = st.integers(0, len(text))
    pieces = st.tuples(offsets, offsets).map(lambda pair: text[min(pair) : max(pair)])
    changed = st.tuples(pieces, st.sampled_from([str.upper, str.lower, _normalise]))
    surfaces = pieces | changed.map(lambda pair: pair[1](pair[0])) | st.text(max_size=5)
    return _TOKENIZE.make_doc(text), draw(st.lists(surfaces, max_size=6))


def test_mention_is_found_with_its_label() -> None:
    spans, _ = ground(_make_doc("my", "pad", "thai"), [Mention("pad thai", "DISH")])
    assert [(s.start, s.end, s.label_) for s in spans] == [(1, 3, "DISH")]


def test_mentions_of_the_same_surface_are_found_one_after_the_other() -> None:
    doc = _make_doc("wok", "or", "wok")
    assert _ground(doc, "wok", "wok") == ([(0, 1), (2, 3)], [Status.EXACT] * 2)


def test_mention_is_sought_after_the_one_before() -> None:
    doc = _make_doc("wok", "and", "ramen", "and", "wok")
    assert _ground(doc, "ramen", "wok")[0] == [(2, 3), (4, 5)]


def test_mention_out_of_order_is_found() -> None:
    doc = _make_doc("wok", "and", "ramen")
    assert _ground(doc, "ramen", "wok") == ([(0, 1), (2, 3)], [Status.EXACT] * 2)


def test_occurrence_inside_a_word_is_passed_over() -> None:
    doc = _make_doc("woks", "wok")
    assert _ground(doc, "wok") == ([(1, 2)], [Status.EXACT])


def test_same_case_goes_before_an_earlier_occurrence() -> None:
    doc = _make_doc("Wok", "wok")
    assert _ground(doc, "wok") == ([(1, 2)], [Status.EXACT])


@pytest.mark.parametrize("surface", ["Pad Thai", "pad  thai", "PAD\nTHAI"])
def test_case_and_white_space_may_differ(surface: str) -> None:
    doc = _make_doc("pad", "thai")
    assert _ground(doc, surface) == ([(0, 2)], [Status.NORMALISED])


@pytest.mark.parametrize(
    ("surfaces", "status"),
    [
        (["sushi"], Status.NOT_IN_TEXT),
        ([""], Status.NOT_IN_TEXT),
        (["p.d"], Status.NOT_IN_TEXT),  # no pattern
        (["hai"], Status.OFF_TOKEN),
        (["pad thai", "thai"], Status.OVERLAP),
        (["thai", "pad thai"], Status.OVERLAP),
    ],
)
def test_what_makes_no_span_has_a_status(surfaces: list[str], status: Status) -> None:
    spans, statuses = _ground(_make_doc("my", "pad", "thai"), *surfaces)
    assert len(spans) == len(surfaces) - 1
    assert statuses[-1] is status


def test_readings_are_in_the_order_of_the_answer() -> None:
    mentions = [Mention("ramen", "DISH"), Mention("wok", "EQUIPMENT")]
    _, readings = ground(_make_doc("wok", "ramen"), mentions)
    assert readings == [Reading(Status.EXACT, *mention) for mention in mentions]


@given(_docs_and_surfaces())
def test_span_is_its_surface(doc_and_surfaces: tuple[Doc, list[str]]) -> None:
    doc, surfaces = doc_and_surfaces
    for surface in surfaces:
        spans, (reading,) = ground(doc, [Mention(surface, "DISH")])
        for span in spans:
            found = doc.text[span.start_char : span.end_char]
            assert _normalise(found) == _normalise(surface)
            assert (found == surface) is (reading.status is Status.EXACT)


@given(_docs_and_surfaces())
def test_spans_do_not_overlap(doc_and_surfaces: tuple[Doc, list[str]]) -> None:
    doc, surfaces = doc_and_surfaces
    spans, _ = ground(doc, [Mention(surface, "DISH") for surface in surfaces])
    tokens = [token.i for span in spans for token in span]
    assert tokens == sorted(set(tokens))


@given(_docs_and_surfaces())
def test_every_mention_is_accounted_for(
    doc_and_surfaces: tuple[Doc, list[str]],
) -> None:
    doc, surfaces = doc_and_surfaces
    spans, readings = ground(doc, [Mention(surface, "DISH") for surface in surfaces])
    assert [reading.text for reading in readings] == surfaces
    found = [r for r in readings if r.status in (Status.EXACT, Status.NORMALISED)]
    assert len(found) == len(spans)


@given(st.data())
def test_every_span_of_tokens_can_be_found(data: st.DataObject) -> None:
    words = data.draw(st.lists(st.sampled_from(_WORDS), min_size=1, max_size=12))
    doc = _TOKENIZE.make_doc(" ".join(words))
    start = data.draw(st.integers(0, len(doc) - 1))
    end = data.draw(st.integers(start + 1, len(doc)))
    surface = doc[start:end].text
    assert _ground(doc, surface)[1] == [Status.EXACT]

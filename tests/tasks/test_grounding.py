import gc
import time
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from spacy.lang.en import English
from spacy.tokens import Doc
from spacy.vocab import Vocab

from instaner.tasks.grounding import (
    READINGS,
    Mention,
    Reading,
    Status,
    dump_readings,
    ground,
    load_readings,
    normalise,
)

_VOCAB = Vocab()
_TOKENIZE = English(max_length=10**6)

# Letters as readers see them, of many scripts and forms. None joins the one before.
_LETTERS = [
    *["a", "A", "e", "é", "e\u0301", "ß", "ẞ", "ﬁ", "ǆ", "ŉ", "İ", "ı", "i", "I", "σ"],
    *["ς", "ᾳ", "й", "и\u0306", "５", "5", "½", "²", "ק", "ש\u05c1", "ع", "ﻻ", "لا"],
    *["हि", "क्", "ก", "นํ้", "ำ", "北", "ｶﾞ", "ガ", "カ\u3099", "각", "가\u11a8", "𐐀"],
    *["👩\u200d💻", "👍🏽", "❤\ufe0f", "🇫🇷", "e\u0316\u0301", "o\u0302\u0323", "ΐ"],
    *["-", "–", "'", "’", '"', "“", "…", "...", "%", "_", "\u1100\u1161", "\ufdfa"],
    *["𝔘", "\u00ad", "\u200b", "c\u200b\u0327"],
]
_SPACES = [" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", " \u200b ", " \u200b"]
_WORDS = st.lists(st.sampled_from(_LETTERS), min_size=1, max_size=4).map("".join)
_CHARS = st.characters(exclude_categories=["Cs"])  # no surrogates: no text has them
_MARKS = st.text(st.sampled_from("a\u0301\u0316\u200b\u11a8 "), min_size=1, max_size=70)


def _in_form(form: str) -> Callable[[str], str]:
    return lambda text: unicodedata.normalize(form, text)  # type: ignore[arg-type]


_CHANGES: dict[str, Callable[[str], str]] = {
    "upper": str.upper,
    "lower": str.lower,
    "title": str.title,
    "casefold": str.casefold,
    "NFC": _in_form("NFC"),
    "NFD": _in_form("NFD"),
    "NFKC": _in_form("NFKC"),
    "NFKD": _in_form("NFKD"),
    "white space": lambda text: "\r\n\t".join(text.split()),
    "no-break space": lambda text: text.replace(" ", "\u00a0\u00a0"),
    "edges": lambda text: f"\ufeff {text}\u200b\n",
    "quotes": lambda text: text.replace("'", "‘").replace('"', "„"),
    "dashes": lambda text: text.replace("-", "—"),
    "soft hyphens": lambda text: text.replace("a", "a\u00ad"),
    "nothing": str,
}


def _make_doc(*words: str) -> Doc:
    return Doc(_VOCAB, words=list(words))


def _ground(doc: Doc, *surfaces: str) -> tuple[list[tuple[int, int]], list[Status]]:
    spans, readings = ground(doc, [Mention(surface, "DISH") for surface in surfaces])
    return [(s.start, s.end) for s in spans], [r.status for r in readings]


def _find(doc: Doc, surface: str, **options: float) -> tuple[str, Status]:
    """Find one surface. RETURNS (Tuple[str, Status]): What was found in the text."""
    spans, (reading,) = ground(doc, [Mention(surface, "DISH")], **options)
    return "".join(span.text for span in spans), reading.status


@st.composite
def _docs(draw: st.DrawFn, words: st.SearchStrategy[str]) -> Doc:
    tokens = draw(st.lists(words, min_size=1, max_size=10))
    spaces = [draw(st.booleans()) for _ in tokens]
    return Doc(_VOCAB, words=tokens, spaces=spaces)


@st.composite
def _docs_and_surfaces(
    draw: st.DrawFn, words: st.SearchStrategy[str]
) -> tuple[Doc, str]:
    """Docs, and text of some of their tokens, without white space at its edges."""
    doc = draw(_docs(words))
    start = draw(st.integers(0, len(doc) - 1))
    surface = doc[start : draw(st.integers(start + 1, len(doc)))].text
    assume(normalise(surface) and surface == surface.strip())
    return doc, surface


@st.composite
def _docs_and_answers(draw: st.DrawFn) -> tuple[Doc, list[Mention]]:
    """Docs, and mentions as an LLM gives them: of the text, or nearly so, or not."""
    words = _WORDS | st.sampled_from(_SPACES) | st.text(_CHARS, min_size=1) | _MARKS
    texts = st.lists(words, max_size=10).map("".join)
    doc = draw(_docs(words) | texts.map(_TOKENIZE.make_doc))
    offsets = st.integers(0, len(doc.text))
    pieces = st.tuples(offsets, offsets).map(lambda cut: doc.text[min(cut) : max(cut)])
    change = draw(st.sampled_from([*_CHANGES.values()]))
    surfaces = pieces | pieces.map(change) | st.text(max_size=8)
    mentions = st.builds(Mention, surfaces, st.sampled_from(["DISH", "EQUIPMENT"]))
    return doc, draw(st.lists(mentions, max_size=8))


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


def test_normalised_mention_is_sought_after_the_one_before() -> None:
    doc = _make_doc("wok", "ramen", "wok", "ramen")
    found = [(1, 2), (2, 3)]
    assert _ground(doc, "Ramen", "Wok") == (found, [Status.NORMALISED] * 2)


def test_misspelt_mention_is_sought_after_the_one_before() -> None:
    doc = _make_doc("mozzarella", "ramen", "mozzarella")
    assert _ground(doc, "ramen", "mozarella")[0] == [(1, 2), (2, 3)]


def test_mention_is_sought_after_one_that_was_found_earlier_in_the_text() -> None:
    doc = _make_doc("ramen", "wok", "ramen", "pan", "wok")
    assert _ground(doc, "pan", "ramen", "wok")[0] == [(0, 1), (1, 2), (3, 4)]


def test_occurrence_inside_a_word_is_passed_over() -> None:
    doc = _make_doc("woks", "awok", "wok")
    assert _ground(doc, "wok") == ([(2, 3)], [Status.EXACT])


def test_occurrence_across_a_part_of_a_word_is_passed_over() -> None:
    doc = _make_doc("pad", "thais", "pad", "thai")
    assert _ground(doc, "pad thai")[0] == [(2, 4)]


def test_occurrences_may_begin_in_each_other() -> None:
    doc = _make_doc("a", "b", "a", "b", "a")
    assert _ground(doc, "b", "a b a")[0] == [(1, 2), (2, 5)]


def test_same_case_goes_before_an_earlier_occurrence() -> None:
    doc = _make_doc("Wok", "wok", "Wok")
    assert _ground(doc, "wok", "wok") == (
        [(1, 2), (2, 3)],
        [Status.EXACT, Status.NORMALISED],
    )


def test_longer_name_may_be_misspelt_beside_its_better_spelling() -> None:
    doc = _make_doc("Spielburg", "Spielberg's", "Speilberg", "Steven", "Spielberg")
    assert _find(doc, "steven speilberg") == ("Steven Spielberg", Status.FUZZY)


@pytest.mark.parametrize(
    ("text", "surface"),
    [
        ("pad thai", "Pad Thai"),
        ("pad thai", "pad \t\r\n thai"),
        ("pad thai", "pad\u00a0thai"),
        ("pad thai", "\ufeff pad thai\n"),
        ("pad\r\nthai", "pad thai"),
        ("pad\u3000thai", "pad thai"),
        ("pad \u200b thai", "pad thai"),
        ("café", "cafe\u0301"),
        ("cafe\u0301", "CAFÉ"),
        ("fac\u200b\u0327ade", "façade"),
        ("¨wok", "¨WOK"),
        ("ﬁsh", "fish"),
        ("Straße", "STRASSE"),
        ("straße", "strasse"),
        ("İstanbul", "istanbul"),
        ("İstanbul", "i\u0307stanbul"),
        ("I\u0307stanbul", "İSTANBUL"),
        ("ISPARTA", "ısparta"),
        ("ｗｏｋ", "wok"),
        ("１９８５", "1985"),
        ("wait…", "wait..."),
        ("chef’s", "chef's"),
        ("“Jaws”", '"Jaws"'),
        ("stir–fry", "stir-fry"),
        ("hy\u00adphen", "hyphen"),
        ("می\u200cروم", "میروم"),
        ("हिन्दी", "हिन्\u200dदी"),
        ("ﻻ", "لا"),
        ("각", "\u1100\u1161\u11a8"),
        ("ｶﾞ", "ガ"),
        ("น้ำ", "น้\u0e4dา"),
        ("❤", "❤\ufe0f"),
        ("chef´s", "chef's"),
        ("﹘", "-"),
        ("ΟΔΟΣ", "οδος"),
    ],
)
def test_form_of_the_text_may_differ(text: str, surface: str) -> None:
    doc = _TOKENIZE.make_doc(f"aä ﬁ {text} \u00ad ß x")
    assert _find(doc, surface, fuzzy=0) == (text, Status.NORMALISED)


@pytest.mark.parametrize(
    ("words", "surface"),
    [
        (["ﬁ", "sh"], "f"),
        (["ﬁ", "sh"], "ish"),
        (["wait", "…"], "wait."),
        (["cafe", "\u0301"], "CAFE"),
        (["xe", "\u0301"], "X"),
        (["e", "\u0301x"], "X"),
        (["½"], "1"),
        (["각"], "가"),
    ],
)
def test_letter_is_not_cut(words: list[str], surface: str) -> None:
    doc = Doc(_VOCAB, words=words, spaces=[False] * len(words))
    assert not _find(doc, surface)[0]


@pytest.mark.parametrize("edge", ["\ufeff", "\u200b", " ", "\r\n\u200b", "\u200b "])
def test_what_is_unseen_at_an_edge_of_a_token_is_no_hindrance(edge: str) -> None:
    doc = _make_doc("my", f"{edge}pad", f"thai{edge}", edge, "wok")
    assert _ground(doc, "pad thai") == ([(1, 3)], [Status.NORMALISED])


@pytest.mark.parametrize("text", ["👩\u200d💻", "👍🏽", "🇫🇷", "हिन्दी", "北京", "สวัสดี"])
def test_exact_text_of_any_script_is_found(text: str) -> None:
    assert _find(_TOKENIZE.make_doc(f"x {text} y"), text) == (text, Status.EXACT)


@pytest.mark.parametrize(
    ("text", "surface"),
    [
        ("We met Quentin Tarantino there", "Quenton Tarantino"),
        ("the Arnold Schwarzenegger film", "arnold schwartzenegger"),
        ("some mozzarella on top", "mozarella"),
        ("a sci-fi thriller", "sci fi"),
        ("his crock pot", "crockpot"),
        ("directed by J. J. Abrams", "J.J. Abrams"),
        ("the jalapeño", "jalapeno"),
        ("some bún chả", "bun cha"),
        ("Yahoo !", "Yahoo!"),
        ('" Jaws and more "', '"Jaws and more"'),
    ],
)
def test_other_spelling_is_found(text: str, surface: str) -> None:
    found, status = _find(_TOKENIZE.make_doc(f"Yes, {text}."), surface)
    assert (status, found in text) == (Status.FUZZY, True)
    assert len(found) >= len(surface) - 1


@pytest.mark.parametrize(
    ("text", "surface"),
    [
        ("the summer of 1986", "the summer of 1985"),
        ("about 1.5 million people", "about 15 million people"),
        ("during World War II", "during World War I"),
        ("Pope John Paul XVIII", "Pope John Paul XXIII"),
        ("George Herbert W. Bush", "George Herbert H. Bush"),
        ("a certain John Blacksmith", "a certain Joan Blacksmith"),
        ("the fright", "fight"),
        ("in Iceland", "Ireland"),
        ("an Australian", "Australia"),
        ("the illegalities", "legalities"),
        ("my wok", "work"),
        ("custard powder", "mustard powder"),
        ("南京大学附属第一人民医院神经外科", "北京大学附属第一人民医院神经外科"),
        ("the Westminster cart", "the Westminster cat"),
        ("for $500 million dollars", "for €500 million dollars"),
        (
            "the national university of central Monrovia and its surroundings",
            "the national university of central Moldavia and its surroundings",
        ),
    ],
)
def test_other_name_is_not_found(text: str, surface: str) -> None:
    doc = _TOKENIZE.make_doc(text) if text.isascii() else _make_doc(text)
    assert not _find(doc, surface)[0]


@pytest.mark.parametrize("fuzzy", [0, 100])
def test_no_other_spelling_is_looked_for(fuzzy: float) -> None:
    doc = _make_doc("mozzarella")
    assert _find(doc, "mozarella", fuzzy=fuzzy) == ("", Status.NOT_IN_TEXT)


@pytest.mark.parametrize(("fuzzy", "found"), [(85, "Micheal"), (86, "")])
def test_threshold_of_another_spelling_is_kept(fuzzy: float, found: str) -> None:
    assert _find(_make_doc("Micheal"), "Michael", fuzzy=fuzzy)[0] == found


def test_best_other_spelling_is_found() -> None:
    doc = _make_doc("Schwartzeneger", "and", "Schwarzeneger")
    assert _find(doc, "Schwarzenegger", fuzzy=80)[0] == "Schwarzeneger"


def test_taken_punctuation_is_no_part_of_another_spelling() -> None:
    doc = _make_doc('"', "Jaws", "and", "more", '"')
    assert _ground(doc, '"', '"Jaws and more"')[0] == [(0, 1), (1, 5)]


def test_letter_beside_is_no_part_of_another_spelling() -> None:
    name = "the honourable Quentin Tarantino productions company of Tarantin"
    doc = Doc(_VOCAB, words=[name.replace("Tarantin", "Tarentin"), "o"])
    assert _find(doc, f"{name}o")[0] == doc[0].text


def test_other_spelling_is_found_among_many_occurrences() -> None:
    doc = _make_doc(*["mozzarella"] * 300)
    assert _ground(doc, *["mozarella"] * 301)[1][-2:] == [
        Status.FUZZY,
        Status.NOT_IN_TEXT,
    ]


def test_other_spelling_is_looked_for_by_what_is_rare_in_it() -> None:
    doc = _make_doc(*["restaurant"] * 300, "Qasimov")
    assert _find(doc, "Restaurant Qasimof")[0] == "restaurant Qasimov"


def test_other_spelling_is_not_looked_for_once_all_of_the_same_are_taken() -> None:
    doc = _make_doc("mozzarella", "mozarella")
    statuses = [Status.EXACT, Status.OVERLAP]
    assert _ground(doc, "mozzarella", "mozzarella")[1] == statuses


def test_punctuation_in_a_token_is_no_hindrance() -> None:
    assert _find(_make_doc("a", "knife-"), "knife") == ("knife-", Status.FUZZY)


@pytest.mark.parametrize(
    ("surfaces", "status"),
    [
        (["sushi"], Status.NOT_IN_TEXT),
        (["p.d"], Status.NOT_IN_TEXT),  # no pattern
        (["my pad thai soup"], Status.NOT_IN_TEXT),
        (["hai"], Status.OFF_TOKEN),
        (["y pad"], Status.OFF_TOKEN),
        (["PAD THA"], Status.OFF_TOKEN),
        (["pad thai", "thai"], Status.OVERLAP),
        (["thai", "pad thai"], Status.OVERLAP),
        (["thai", "PAD THAI"], Status.OVERLAP),
        (["thai", "thai"], Status.OVERLAP),
    ],
)
def test_what_makes_no_span_has_a_status(surfaces: list[str], status: Status) -> None:
    spans, statuses = _ground(_make_doc("my", "pad", "thai"), *surfaces)
    assert len(spans) == len(surfaces) - 1
    assert statuses[-1] is status


def test_overlap_is_told_before_off_token() -> None:
    doc = _make_doc("woks", "wok")
    assert _ground(doc, "wok", "wok")[1] == [Status.EXACT, Status.OVERLAP]


@pytest.mark.parametrize("surface", ["", " ", "\u200b", "\u00a0\ufeff\r\n"])
def test_surface_of_nothing_is_not_in_the_text(surface: str) -> None:
    doc = _make_doc("a", " ", "\u200b", "\u00a0\ufeff\r\n", "b")
    assert _find(doc, surface) == ("", Status.NOT_IN_TEXT)


def test_white_space_at_an_edge_is_no_part_of_a_name() -> None:
    doc = _make_doc("my", "\n", "wok")
    assert _ground(doc, "\n wok") == ([(2, 3)], [Status.NORMALISED])


def test_empty_doc_has_no_mention() -> None:
    assert _find(_make_doc(), "wok") == ("", Status.NOT_IN_TEXT)


def test_same_surface_with_another_label_takes_other_tokens() -> None:
    mentions = [Mention("wok", label) for label in ("DISH", "EQUIPMENT", "DISH")]
    spans, readings = ground(_make_doc("wok", "or", "wok"), mentions)
    assert [(s.start, s.label_) for s in spans] == [(0, "DISH"), (2, "EQUIPMENT")]
    assert readings[2] == Reading(Status.OVERLAP, "wok", "DISH")


def test_readings_are_in_the_order_of_the_answer() -> None:
    mentions = [Mention("ramen", "DISH"), Mention("Wok", "EQUIPMENT")]
    _, readings = ground(_make_doc("wok", "ramen"), mentions)
    assert readings == [
        Reading(Status.EXACT, "ramen", "DISH", 4, 9),
        Reading(Status.NORMALISED, "Wok", "EQUIPMENT", 0, 3),
    ]


def test_readings_survive_a_file() -> None:
    doc = _make_doc("wok")
    _, readings = ground(doc, [Mention("wok", "DISH"), Mention("pan", "DISH")])
    doc.user_data[READINGS] = dump_readings(readings)
    assert load_readings(Doc(_VOCAB).from_bytes(doc.to_bytes())) == readings


@pytest.mark.parametrize("offsets", [(), (-1, -1)])
def test_readings_without_what_came_later_are_read(offsets: tuple[int, ...]) -> None:
    doc = _make_doc("wok")
    doc.user_data[READINGS] = [("exact", "wok", "DISH", *offsets)]
    assert load_readings(doc) == [Reading(Status.EXACT, "wok", "DISH", -1, -1, "")]


@pytest.mark.parametrize("status", Status)
def test_what_made_a_span_is_no_loss(status: Status) -> None:
    kept = (Status.NO_ENTITY, Status.EXACT, Status.NORMALISED, Status.FUZZY)
    assert status.is_loss is (status not in kept)


@pytest.mark.parametrize("change", _CHANGES.values(), ids=_CHANGES)
def test_normal_form_is_that_of_the_changed(change: Callable[[str], str]) -> None:
    changed = [normalise(change(letter)) for letter in _LETTERS]
    assert changed == [normalise(letter) for letter in _LETTERS]


@given(_docs_and_surfaces(_WORDS | st.text(_CHARS, min_size=1) | _MARKS))
def test_text_of_tokens_is_found(doc_and_surface: tuple[Doc, str]) -> None:
    doc, surface = doc_and_surface
    assert _find(doc, surface) == (surface, Status.EXACT)


@given(_docs_and_surfaces(_WORDS), st.sampled_from([*_CHANGES]))
def test_changed_text_of_tokens_is_found(
    doc_and_surface: tuple[Doc, str], change: str
) -> None:
    doc, surface = doc_and_surface
    found, status = _find(doc, _CHANGES[change](surface), fuzzy=0)
    assert status in (Status.EXACT, Status.NORMALISED)
    assert normalise(found) == normalise(surface)


@given(_docs_and_answers())
def test_span_is_its_surface(doc_and_answer: tuple[Doc, list[Mention]]) -> None:
    doc, answer = doc_and_answer
    for reading in ground(doc, answer)[1]:
        found = doc.text[reading.start : reading.end]
        if reading.status is Status.EXACT:
            assert found == reading.text
        elif reading.status is Status.NORMALISED:
            assert normalise(found) == normalise(reading.text)
        else:
            assert found != reading.text or not found


@given(_docs_and_answers())
def test_nothing_is_counted_twice(doc_and_answer: tuple[Doc, list[Mention]]) -> None:
    doc, answer = doc_and_answer
    spans, readings = ground(doc, answer)
    assert [Mention(r.text, r.label, r.reason) for r in readings] == answer
    made = sorted((r.start, r.end, r.label) for r in readings if not r.status.is_loss)
    assert made == [(s.start_char, s.end_char, s.label_) for s in spans]
    lost = [(r.start, r.end) for r in readings if r.status.is_loss]
    assert lost == [(-1, -1)] * (len(answer) - len(spans))
    tokens = [token.i for span in spans for token in span]
    assert tokens == sorted(set(tokens))


_LINE = (
    "The chef Zoë Ångström-{i} of Bistro {i} fries tofu{i} in a wok, and serves it "
    "to whoever came.\r\n"
)
_SIZE = 1000


def _time(doc: Doc, surfaces: list[str]) -> float:
    mentions = [Mention(surface, "DISH") for surface in surfaces]
    gc.collect()
    start = time.process_time()
    ground(doc, mentions)
    return time.process_time() - start


def _make_long_doc(size: int) -> Doc:
    """A text of about 100 characters for each mention."""
    return _TOKENIZE.make_doc("".join(_LINE.format(i=i) for i in range(size)))


_ANSWERS: dict[str, Callable[[int], str]] = {
    "exact": "tofu{}".format,
    "the same": lambda i: "wok",
    "backwards": lambda i: f"tofu{_SIZE - i - 1}",
    "normalised": "TOFU{}".format,
    "misspelt": "Zoé Angstroem-{}".format,
    "punctuation": "Zoë Ångström {}".format,
    "absent": "some chefs of bistros{}".format,
    "off token": "ofu{}".format,
}


@pytest.mark.parametrize("name", _ANSWERS)
def test_thousand_mentions_take_about_a_second(name: str) -> None:
    doc = _make_long_doc(_SIZE)
    assert len(doc.text) > 95_000
    surfaces = [_ANSWERS[name](i) for i in range(_SIZE)]
    # What is not in the text takes longest: 0.7 s where it was measured.
    at_most = 1 if name in ("exact", "the same", "backwards", "normalised") else 2
    assert min(_time(doc, surfaces) for _ in range(3)) < at_most


_LONG = 100 * _SIZE


@pytest.mark.parametrize(
    ("words", "surfaces"),
    [
        (["a", "bcda"] * (_LONG // 7), ["a"] * 2 * _SIZE),
        (["a", "b"] * 5 * _SIZE, ["a"] * 20 * _SIZE),
        (["z"] * _SIZE + ["a", "b"] * _SIZE, ["z", "a"] * _SIZE),
        (["a"] * (_LONG // 2), ["a " * i + "a" for i in range(_SIZE)]),
        (["a" * _LONG], ["a" * i for i in range(_SIZE)]),
        (["a" * _LONG], ["a" * (i % 40) + "b" + "a" * (i // 40) for i in range(_SIZE)]),
        (["e" + "\u0316\u0301" * (_LONG // 2)], ["É"] * _SIZE),
        (["\u200b" * _LONG, "a"], [f"a{i}" for i in range(_SIZE)]),
        ([" " * _LONG, "a"], [f"a{i}" for i in range(_SIZE)]),
    ],
)
def test_no_text_takes_quadratic_time(words: list[str], surfaces: list[str]) -> None:
    assert _time(_make_doc(*words), surfaces) < 4  # it is ten and more if quadratic


def test_time_grows_with_the_text_and_the_answer() -> None:
    names = ("exact", "normalised", "absent", "off token")
    times = []
    for size in (_SIZE // 2, _SIZE):
        doc = _make_long_doc(size)
        surfaces = [_ANSWERS[name](i) for i in range(size) for name in names]
        times.append(min(_time(doc, surfaces) for _ in range(3)))
    assert times[1] < 3.4 * times[0]  # it is four if quadratic

"""Malformed answers, grouped by the way in which they are; and all others."""

import hashlib
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator

import pytest
import srsly
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from instaner.tasks.grounding import Reading, Status
from instaner.tasks.marks import MarkedText, read_marks, read_texts

from ..conftest import LABELS, ROOT

_LABELS = ["DISH", "INGREDIENT", "EQUIPMENT"]
_RECORDED = [
    row["response"]
    for row in srsly.read_jsonl(ROOT / "assets/recordings/generate.jsonl")
]
_MARK = re.compile(r"\[([^\[\]]+)\]\(([^()]*)\)")
_WOK = "[wok](EQUIPMENT)"
_LOST = Status.UNREADABLE


def _render(marked: MarkedText) -> str:
    rendered, end = "", 0
    for start, stop, label in marked.spans:
        rendered += f"{marked.text[end:start]}[{marked.text[start:stop]}]({label})"
        end = stop
    return rendered + marked.text[end:]


def _read(answer: str) -> tuple[list[str], list[Status]]:
    """RETURNS (Tuple[List[str], List[Status]]): Texts with marks as they should be, and
    what was lost."""
    texts, readings = read_texts(answer, _LABELS)
    _check(texts, readings)
    return list(map(_render, texts)), [r.status for r in readings if r.status.is_loss]


def _check(texts: list[MarkedText], readings: list[Reading]) -> None:
    """Check what holds for every answer."""
    assert texts or readings
    surfaces = []
    for text, spans in texts:
        assert text
        assert text == text.strip()
        assert not any(f"]({label})" in text for label in _LABELS)
        ends = [offset for start, end, _ in spans for offset in (start, end)]
        assert ends == sorted(ends)
        for start, end, label in spans:
            assert 0 <= start < end <= len(text)
            surface = text[start:end]
            assert surface == surface.strip()
            assert not re.search(r"\]\(|\n", surface)
            assert label in _LABELS
            surfaces.append((surface, label))
    exact = [(r.text, r.label) for r in readings if r.status is Status.EXACT]
    assert surfaces == exact


# Each way numbers the texts "Use a [wok](EQUIPMENT) now" and "No more".
_NUMBERINGS = [
    *("1. A\n2. B", "1) A\n2) B", "(1) A\n(2) B", "[1] A\n[2] B", "1: A\n2: B"),
    *("1 - A\n2 - B", "1 – A\n2 – B", "1/ A\n2/ B", "1.A\n2.B", "1\\. A\n2\\. B"),
    *("**1.** A\n**2.** B", "**1. A**\n**2. B**", "**1**. A\n**2**. B"),
    *("#1 A\n#2 B", "#1: A\n#2: B", "Text 1: A\nText 2: B", "Tekst 1. A\nTekst 2. B"),
    *("**Text 1:** A\n**Text 2:** B", "テキスト1：A\nテキスト2：B"),
    *("### 1\nA\n\n### 2\nB", "### Text 1\nA\n### Text 2\nB", "## 1. A\n## 2. B"),
    *("- A\n- B", "* A\n* B", "• A\n• B", "– A\n– B", "- 1. A\n- 2. B"),
    *(
        "> 1. A\n> 2. B",
        "1、A\n2、B",
        "１．A\n２．B",
        "（1）A\n（2）B",
        "【1】A\n【2】B",
    ),
    *("①A\n②B", "① A\n② B", "⑴ A\n⑵ B", "❶ A\n❷ B", "1️⃣ A\n2️⃣ B"),
    *("١. A\n٢. B", "۱) A\n۲) B", "१. A\n२. B", "a) A\nb) B", "(a) A\n(b) B"),
    *("A. A\nB. B", "1 A\n2 B", "1\nA\n2\nB", "0. A\n1. B", "7. A\n8. B"),
    *("1. A\n1. B", "1. A\n2) B", "01. A\n02. B", " 1.   A \n 2.\tB "),
]
_LAYOUTS = [
    *("A\nB", "A\n\nB", "1. A\n\n\n2. B", "1. A\r\n2. B\r\n", "1. A\r2. B"),
    *("```\n1. A\n2. B\n```", "```text\nA\nB\n```", "~~~\n1. A\n2. B\n~~~"),
    *("<texts>\n1. A\n2. B\n</texts>", "---\n1. A\n---\n2. B\n---"),
    "Here are 12 texts:\n1. A\n2. B",
    "Here you are:\n\n1. A\n2. B",
    "Hier zijn ze:\n\n1. A\n2. B\n\nVeel succes ermee!",
    "以下がテキストです。\n\n1. A\n2. B",
    "إليك النصوص:\n1. A\n2. B",
    "Sure! 🍜\n\n1. A\n2. B\n\nLet me know if you need more.",
    "1. A\n2. B\nI hope this helps!",
    "Here are texts:\nA\nB",
    "Voici\n\nA\nB\n\nBon appétit",
    "Sure:\n\n- A\n- B\n\nEnjoy!",
    "<think>1. One [pan](EQUIPMENT)\n2. Two</think>\n1. A\n2. B",
    "<thinking>Hm.</thinking>1. A\n2. B",
    '1. "A"\n2. "B"',
    "1. “A”\n2. “B”",
    "1. «A»\n2. «B»",
    "1. 「A」\n2. 「B」",
    "1. **A**\n2. **B**",
    "1. *A*\n2. *B*",
    '1. **"A"**\n2. **"B"**',
    "1. `A`\n2. `B`",
    '["A", "B"]',
    '```json\n[\n  "A",\n  "B"\n]\n```',
    'Here:\n["A", "B"]\nDone.',
    '["1. A", "2. B"]',
    '["A", "B",]',
    '[{"text": "A"}, {"text": "B"}]',
    '[{"id": 1, "sentence": "A"}, {"id": 2, "sentence": "B"}]',
    '{"texts": ["A", "B"]}',
    '{"1": "A", "2": "B"}',
    '{"text": "A"}\n{"text": "B"}',
    "['A', 'B']",
]


@pytest.mark.parametrize("layout", _NUMBERINGS + _LAYOUTS)
def test_texts_are_found(layout: str) -> None:
    first, second = f"Use a {_WOK} now", "No more"
    places = {"A": first, "B": second}
    # Of "A. A", the text is the last.
    answer = re.sub(r"(?<![a-z])[AB](?![\w.])", lambda match: places[match[0]], layout)
    assert _read(answer) == ([first, second], [])


@pytest.mark.parametrize(
    ("answer", "texts"),
    [
        ("1. Foo. 2. Bar.", ["Foo.", "Bar."]),
        ("1) Foo! 2) Bar? 3) Baz", ["Foo!", "Bar?", "Baz"]),
        ("1. Foo. 2. Bar.\n3. Baz", ["Foo.", "Bar.", "Baz"]),
        ("1. Foo 2. Bar\n3. Baz", ["Foo", "Bar", "Baz"]),
        ("1. Heat to 2. Then stir.\n2. Eat.", ["Heat to 2. Then stir.", "Eat."]),
        ("1. Heat to 2. Then stir.", ["Heat to 2. Then stir."]),
        ("1. Add 1.5 cups.\n2. 2.5 more.", ["Add 1.5 cups.", "2.5 more."]),
        ("1. 1. Sit. 2. Eat.", ["1. Sit. 2. Eat."]),
        ("1. 1) Sit. 2) Eat.\n2. Bar", ["1) Sit. 2) Eat.", "Bar"]),
        ("1. 350 g of it\n2. 2 stars", ["350 g of it", "2 stars"]),
        ("1. Soup:\n1) Boil\n2) Eat\n2. Bar", ["Soup:\n1) Boil\n2) Eat", "Bar"]),
        ("1. Dear Ann,\n\nThanks.\nBob\n2. Bar", ["Dear Ann,\nThanks.\nBob", "Bar"]),
        (
            "1. Dear Ann,\n  Hi.\n2. Dear Bob,\n  Hi.",
            ["Dear Ann,\nHi.", "Dear Bob,\nHi."],
        ),
        ("1. Foo\nBar\n3. Baz", ["Foo", "Bar", "Baz"]),
        (f"Try a {_WOK}\n2. Bar\n3. Baz", [f"Try a {_WOK}", "Bar", "Baz"]),
        ("1. Foo\n3. Bar\n3. Baz", ["Foo", "Bar", "Baz"]),
        ('1. "No," she said, "never."\n2. Bar', ['"No," she said, "never."', "Bar"]),
        ('1. "low heat" my ass', ['"low heat" my ass']),
        ("1. ...and then\n2. (really)", ["...and then", "(really)"]),
        (f"1. {_WOK} first\n2. [1](DISH)", [f"{_WOK} first", "[1](DISH)"]),
        (f"{_WOK}\n[a](DISH) b", [_WOK, "[a](DISH) b"]),
        ('["Big"](EQUIPMENT) green', ['["Big"](EQUIPMENT) green']),
        (f"### Mails\n1. {_WOK}\n### Posts\n2. Bar", [_WOK, "Bar"]),
        ('["Dear Ann,\\nuse a [wok](EQUIPMENT)"]', [f"Dear Ann,\nuse a {_WOK}"]),
        ("1. Pak de [wok](equipment)\n\nGroet!", [f"Pak de {_WOK}"]),
        (
            "1. [鍋](EQUIPMENT)で[豆腐](INGREDIENT)。",
            ["[鍋](EQUIPMENT)で[豆腐](INGREDIENT)。"],
        ),
        (
            "١. [الكسكس](DISH) في [قدر](EQUIPMENT)",
            ["[الكسكس](DISH) في [قدر](EQUIPMENT)"],
        ),
        ("1. 🍜🍜 [🍜 ramen](DISH) 🍜", ["🍜🍜 [🍜 ramen](DISH) 🍜"]),
        (
            "1. [cre\u0300me](INGREDIENT) bru\u0302le\u0301e",
            ["[cre\u0300me](INGREDIENT) bru\u0302le\u0301e"],
        ),
        ("1. Foo\n2.\n3. Bar", ["Foo", "Bar"]),
    ],
)
def test_layout_is_read(answer: str, texts: list[str]) -> None:
    assert _read(answer) == (texts, [])


_MENDED = [
    *(f"[wok]{label}" for label in ("(EQUIPMENT)", " (EQUIPMENT)", "  ( EQUIPMENT )")),
    *(
        "[wok](equipment)",
        "[wok](Equipment)",
        '[wok]("EQUIPMENT")',
        "[wok](*EQUIPMENT*)",
    ),
    *("[wok](EQUIPMENT: a pan)", "[wok](EQUIPMENT - a pan)", "[wok](EQUIPMENT, big)"),
    *(
        "[wok](label: EQUIPMENT)",
        "[wok](type=EQUIPMENT)",
        "[wok](EQUIPMENT: a (big) pan)",
    ),
    *("[wok][EQUIPMENT]", "[wok] [EQUIPMENT]", "[wok]{EQUIPMENT}", "[wok]{equipment}"),
    *("[EQUIPMENT](wok)", r"\[wok\](EQUIPMENT)", r"\[wok\]\(EQUIPMENT\)"),
    *("［wok］（EQUIPMENT）", "【wok】（EQUIPMENT）", "［wok](EQUIPMENT)"),
    *("**[wok](EQUIPMENT)**", "[**wok**](EQUIPMENT)", "**[wok]**(EQUIPMENT)"),
    *("[wok]**(EQUIPMENT)**", "_[wok](EQUIPMENT)_", "`[wok](EQUIPMENT)`"),
    *(
        "[`wok`](EQUIPMENT)",
        "[ wok ](EQUIPMENT)",
        "[wok ](EQUIPMENT)",
        "[\twok](EQUIPMENT)",
    ),
    *("[wok(EQUIPMENT)", "[wok (EQUIPMENT)", "[wok (EQUIPMENT)]", "[wok](EQUIPMENT"),
    *(
        "[wok](EQUIPMENT]",
        "[wok](EQUIPMENT}",
        "[wok]((EQUIPMENT))",
        "[wok](EQUIPMENT）",
    ),
]


@pytest.mark.parametrize("mark", _MENDED)
def test_mark_is_mended(mark: str) -> None:
    expected = f"Use a {_WOK} now", ["Use a [pan](EQUIPMENT)"]
    assert _read(f"1. Use a {mark} now\n2. Use a [pan](EQUIPMENT)") == (
        [expected[0], *expected[1]],
        [],
    )


@pytest.mark.parametrize(
    "text",
    [
        *(
            "use [pad thai](EQUIP",
            "use wok](EQUIPMENT) now",
            "use [wok](EQUIPMENT it) now",
        ),
        *(
            "use [wok(EQUIPMENT now",
            "use [wok]EQUIPMENT) now",
            "use [wok EQUIPMENT now",
        ),
        *(
            "use [wok now",
            "use wok] now",
            "use wok (EQUIPMENT) now",
            "use [](EQUIPMENT)",
        ),
        *(
            "use [ ](EQUIPMENT)",
            "use [[wok](EQUIPMENT) now",
            "use [w[ok](EQUIPMENT) now",
        ),
        *("use [w]ok](EQUIPMENT)", "use [wok]](EQUIPMENT)", "use [wok][(EQUIPMENT)"),
        *("<EQUIPMENT>wok</EQUIPMENT>", "use [wok: EQUIPMENT]", "use [EQUIPMENT: wok]"),
        *("use [wok)(EQUIPMENT]", "use ]wok[(EQUIPMENT)", "use [wo(k](EQUIPMENT)"),
        *("use [wok]\n(EQUIPMENT)", "use [pad\nthai](DISH)", "[wok](EQUIP\nMENT)"),
        *(
            "use [wok](EQUIPMENT/DISH)",
            "[wok](EQUIPMENT)(DISH)",
            "[a [b](http://c)](DISH)",
        ),
        "[" * 30 + "wok" + "](EQUIPMENT)" * 30,
    ],
)
def test_text_with_a_broken_mark_is_left_out(text: str) -> None:
    assert _read(f"1. Foo\n2. {text}\n3. Bar") == (["Foo", "Bar"], [_LOST])


@pytest.mark.parametrize(
    "answer",
    [
        f"1. Use {_WOK}\n2. Use [w",
        f"1. Use {_WOK}\n2. Use [wok]",
        f"1. Use {_WOK}\n2. Use [wok](",
        f"1. Use {_WOK}\n2. Use [wok](EQUI",
        f"Use {_WOK}\nUse [wok]",
        f'["Use {_WOK}", "Use [wo',
    ],
)
def test_text_that_is_cut_in_a_mark_is_left_out(answer: str) -> None:
    assert _read(answer) == ([f"Use {_WOK}"], [_LOST])


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("tool", "My [hoe](tool) broke (my favourite tool)."),
        ("plant", "A [fern](plant) (plant or not) is [green](plant)."),
        ("AGE", "He is [9](AGE) (HOMEPAGE)."),
        ("A", "In [Ohio](A) (USA)."),
    ],
)
def test_word_in_brackets_is_no_mark(label: str, text: str) -> None:
    ((read, _),), _ = read_texts(f"1. {text}", [label])
    assert read == re.sub(r"\[(\w+)\]\(\w+\)", r"\1", text)


@pytest.mark.parametrize(
    "text",
    ["hoe (tool)", "[hoe] (tool that broke)", "hoe (tool: x)", "hoe (tool", "my tool)"],
)
def test_label_in_brackets_that_may_be_a_mark_leaves_the_text_out(text: str) -> None:
    assert read_texts(f"1. A [saw](tool), {text}", ["tool"])[0] == []


def test_remark_with_a_word_that_ends_in_a_label_is_no_text() -> None:
    answer = "1. A [saw](tool).\n2. A [hoe](tool).\n\nI have pedestools!"
    assert len(read_texts(answer, ["tool"])[0]) == 2
    assert not any(r.status.is_loss for r in read_texts(answer, ["tool"])[1])


def test_label_that_is_cut_may_be_another() -> None:
    labels = ["FOOD", "FOOD_ITEM"]
    assert read_texts("1. A [pea](FOOD", labels)[0] == []
    assert read_texts("1. A [pea](FOOD is", labels)[0][0].spans == [(2, 5, "FOOD")]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "See [recipe](https://a.b/c_(d)) now",
            "A [1] note [sic] and [ ] box",
            "[x] (y)",
        ),
        *("See [it](www.a.com)", "See [it](#top)", "See [it](/a/b.html)", "a [b][c] d"),
        *("Go to https://a.b/[c]?d=(e) now", "Is it (or not) good? :)", "arr[0](x.y)"),
        *("THE BEST DISH EVER", "the equipment (old)", "[note: soon] then", "[](x) a"),
    ],
)
def test_what_is_no_mark_stays(text: str) -> None:
    assert _read(f"1. {text}\n2. {_WOK}") == ([text, _WOK], [])


@pytest.mark.parametrize(
    ("text", "expected", "losses"),
    [
        ("[[tofu](INGREDIENT) fry](DISH)", "[tofu fry](DISH)", [Status.OVERLAP]),
        ("[fried [tofu](INGREDIENT)](DISH)", "[fried tofu](DISH)", [Status.OVERLAP]),
        ("[[wok](EQUIPMENT)](EQUIPMENT)", _WOK, [Status.OVERLAP]),
        ("[[a](DISH) b [c](DISH)](DISH)", "[a b c](DISH)", [Status.OVERLAP] * 2),
        ("[[tofu](FOO) fry](DISH)", "[tofu fry](DISH)", [Status.UNKNOWN_LABEL]),
        ("[my [wok](EQUIPMENT)](FOO)", f"my {_WOK}", [Status.UNKNOWN_LABEL]),
        ("a [pan](TOOL) b", "a pan b", [Status.UNKNOWN_LABEL]),
        ("[dish](yummy) b", "dish b", [Status.UNKNOWN_LABEL]),
        ("[note: [wok](EQUIPMENT) ok]", f"[note: {_WOK} ok]", []),
        ("[tofu (firm)](INGREDIENT)", "[tofu (firm)](INGREDIENT)", []),
        ("[tofu [firm]](INGREDIENT)", "[tofu [firm]](INGREDIENT)", []),
        ("a [ wok ](EQUIPMENT) b", f"a {_WOK} b", []),
        ("a [wok ](EQUIPMENT)", f"a {_WOK}", []),
        ("a[ wok ](EQUIPMENT)b", f"a {_WOK} b", []),
        ("[wok](EQUIPMENT)[pea](DISH)", f"{_WOK}[pea](DISH)", []),
        (f"https://a.b/(c) {_WOK}", f"https://a.b/(c) {_WOK}", []),
    ],
)
def test_marks_are_read(text: str, expected: str, losses: list[Status]) -> None:
    assert _read(f"1. {text}") == ([expected], losses)


@pytest.mark.parametrize(
    ("answer", "losses"),
    [
        *(("", 1), ("\n \n", 1), ("```\n```", 1), ("1.", 1), ("1.\n2.", 1)),
        ("I'm sorry, I can't do that.", 1),
        ("What do you mean?\nWhich texts?", 2),
        ("<think>1. One [wok](EQUIPMENT)", 1),
        ("<think>1. One</think>", 1),
        *(("[]", 1), ("{}", 1), ('{"texts": []}', 1), ("1. [](DISH)", 1)),
        ('{"text": "A wok", "entities": ["wok"]}', 1),
    ],
)
def test_answer_without_texts_is_unreadable(answer: str, losses: int) -> None:
    assert _read(answer) == ([], [_LOST] * losses)


@pytest.mark.parametrize(
    "answer",
    [
        f"Mark {_WOK} so:\n1. Foo",
        f"1. Foo\n\nMore {_WOK}?",
        "1. Foo\nNog iets",
        f'Like {_WOK}:\n["Foo"]',
        f'["Foo"]\n{_WOK}',
    ],
)
def test_line_that_is_no_text_is_counted(answer: str) -> None:
    assert _read(answer) == (["Foo"], [_LOST])


def test_marks_are_taken_out() -> None:
    (text, spans), _ = read_marks("A [wok](EQUIPMENT) of [pad thai](DISH).", LABELS)
    assert text == "A wok of pad thai."
    assert spans == [(2, 5, "EQUIPMENT"), (9, 17, "DISH")]


def test_marks_are_counted() -> None:
    _, readings = read_marks("[wok](EQUIPMENT) [pan](TOOL)", LABELS)
    assert readings == [
        Reading(Status.EXACT, "wok", "EQUIPMENT"),
        Reading(Status.UNKNOWN_LABEL, "pan", "TOOL"),
    ]


def test_broken_mark_is_returned_and_counted() -> None:
    line = "A [wok(EQUIPMENT of"
    assert read_marks(line, LABELS) == ((line, []), [Reading(_LOST, line, "")])


def test_label_is_found_among_similar_ones() -> None:
    labels = ["Dish", "DISH", "a-b", "a_b"]
    line = "[x](Dish) [x](DISH) [x](dish) [x](a-b) [x](A B)"
    (_, spans), _ = read_marks(line, labels)
    assert [label for *_, label in spans] == ["Dish", "DISH", "a-b"]


def test_recorded_answers_are_read() -> None:
    read = [read_texts(answer, _LABELS) for answer in _RECORDED]
    texts = [text for texts, _ in read for text in texts]
    assert (len(read), len(texts)) == (100, 1200)
    assert sum(len(text.spans) for text in texts) == 2361
    assert all(r.status is Status.EXACT for _, readings in read for r in readings)
    digest = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
    assert digest == "fd45d5c1a136c6538c1534b8c930ffba925f25faefa66a24a105111a8e7a0bcd"


_LETTERS = st.characters(
    exclude_categories=["P", "S", "C", "Z"], exclude_characters="_`*"
)
_WORDS = st.text(_LETTERS, min_size=1, max_size=6).filter(
    lambda word: word == word.strip() and word not in _LABELS
)
_PHRASES = st.lists(_WORDS, min_size=1, max_size=3).map(" ".join)
_PIECES = st.tuples(_PHRASES, _PHRASES, st.sampled_from(_LABELS))
_TEXTS = st.lists(st.lists(_PIECES, min_size=1, max_size=3), min_size=1, max_size=5)


@given(_TEXTS, st.sampled_from(["{}. ", "{}) ", "({}) ", "Text {}: ", "**{}.** "]))
def test_what_is_well_formed_is_given_back(
    rows: list[list[tuple[str, str, str]]], mark: str
) -> None:
    texts = ["; ".join(f"{p} [{s}]({la})" for p, s, la in row) for row in rows]
    lines = [mark.format(i) + text + "!" for i, text in enumerate(texts, 1)]
    assert _read("\n".join(lines)) == ([f"{text}!" for text in texts], [])


_BITS = st.sampled_from(
    [
        *(
            "[",
            "]",
            "(",
            ")",
            "](",
            "DISH",
            "dish",
            "wok",
            "1.",
            "2)",
            " ",
            "\n",
            "\n\n",
        ),
        *(
            "{",
            "}",
            '"',
            '["',
            "text",
            ":",
            "\\",
            "*",
            "**",
            "`",
            "_",
            "（",
            "］",
            "- ",
        ),
        *("①", "١", "</think>", "```", "http://", "🍜", "\u0301", "\u2028", "\r", "#"),
    ]
)
_ANSWERS = st.text(max_size=60) | st.lists(_BITS, max_size=40).map("".join)


@settings(max_examples=500)
@given(_ANSWERS)
def test_any_answer_is_read(answer: str) -> None:
    _check(*read_texts(answer, _LABELS))


_SPECIAL = re.compile(r"[\[\]()\d\n]")
_Edit = tuple[str, int, int]  # an answer, and what of it was touched: from, to


def _mutate(answer: str, rng: random.Random) -> _Edit:
    """Mutate an answer in one place."""
    places = [match.start() for match in _SPECIAL.finditer(answer)]
    way = rng.choice(["drop", "insert", "swap", "exchange", "cut"])
    if way in ("insert", "cut") or len(places) < 4:
        place = rng.randrange(len(answer) + 1)
        if way == "cut":
            return answer[:place], place, len(answer)
        return answer[:place] + rng.choice("[]()17\n") + answer[place:], place, place
    i = rng.randrange(len(places) - 1)
    place, other = places[i], places[i] + 1
    if way == "drop":
        return answer[:place] + answer[other:], place, other
    brackets = [match.start() for match in re.finditer(r"[\[\]()]", answer)]
    if way == "exchange" and len(brackets) > 1:
        i = rng.randrange(len(brackets) - 1)
        place, other = brackets[i], brackets[i + 1]
    letters = list(answer)
    letters[place], letters[other] = letters[other], letters[place]
    return "".join(letters), place, other


def _iter_surfaces(texts: list[MarkedText]) -> Iterator[tuple[str, str]]:
    for text, spans in texts:
        yield from ((text[start:end], label) for start, end, label in spans)


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(_RECORDED), st.randoms(use_true_random=False))
def test_mutated_answer_gives_no_wrong_span(answer: str, rng: random.Random) -> None:
    mutated, start, end = _mutate(answer, rng)
    texts, readings = read_texts(mutated, _LABELS)
    if mutated.strip():
        _check(texts, readings)
    marks = list(_MARK.finditer(answer))
    touched = [m for m in marks if m.start() <= end and start <= m.end()]
    whole = Counter((m[1], m[2]) for m in marks if m not in touched)
    for surface, label in (Counter(_iter_surfaces(texts)) - whole).elements():
        assert surface in mutated
        assert any(
            label == mark[2] and Levenshtein.distance(surface, mark[1]) <= 2
            for mark in touched
        ), (surface, label)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(_RECORDED), st.integers(2, 6), st.randoms(use_true_random=False))
def test_answer_mutated_often_is_read(
    answer: str, times: int, rng: random.Random
) -> None:
    for _ in range(times):
        answer, _, _ = _mutate(answer, rng)
    texts, readings = read_texts(answer, _LABELS)
    _check(texts, readings)
    assert all(surface in answer for surface, _ in _iter_surfaces(texts))


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "[",
            "]",
            "(",
            "[a](",
            "[a](DISH",
            "[a](DISH)",
            "[a[a](DISH)](DISH)",
            "(DISH",
        ),
        *("1. ", "1.\n", "\n", " ", "[ ", '["', '["\n', '{"a":', ":", "*", "#", "`"),
        *(
            "x [a](DISH)\n\n",
            "[x](y.z) ",
            "2. b. ",
            "[a](b",
            "\\[",
            "<think>",
            "</think>",
        ),
        *("1. ", "1. " + " " * 1000, "1. [a](b", "1. [x](y) " * 99),
    ],
)
def test_long_answer_is_read_in_seconds(piece: str) -> None:
    answer = piece * (1_000_000 // len(piece))
    start = time.process_time()
    read_texts(answer, _LABELS)
    assert time.process_time() - start < 20  # about 2 on a quick machine

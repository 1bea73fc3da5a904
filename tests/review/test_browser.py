"""The page in a browser: Debian's Chromium, which playwright drives."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import spacy
import srsly
from spacy.language import Language
from spacy.tokens import Span

from instaner.corpus import read_docs, write_shards

from .conftest import DISHES, Served, annotate, call

pytest.importorskip("starlette")
sync_api = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

# Time from a key to the next frame.
_PRESS = """async (key) => {
  const start = performance.now();
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
  return performance.now() - start;
}"""

RAMEN, SCRIPT, WOK, NOTHING, *_ = DISHES
Open = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Opens a page, of which errors are noted."""
    contexts = []

    def open_(address: str, width: int = 1280, scheme: str = "light") -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 844}, color_scheme=scheme
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.noted = []
        page.on("pageerror", lambda error: page.noted.append(str(error)))
        page.goto(address)
        page.wait_for_selector("#work:not([hidden])")
        # Until all texts are there, their order is not the final one.
        sync_api.expect(page.locator("#stage")).to_have_text("")
        return page

    yield open_
    for context in contexts:
        context.close()


def get_text(page: Any) -> str:
    """RETURNS (str): The text that is shown, without the labels in it."""
    return str(
        page.evaluate(
            "() => { const t = document.getElementById('text').cloneNode(true);"
            "t.querySelectorAll('small').forEach(s => s.remove());"
            "return t.textContent; }"
        )
    )


def get_marks(page: Any) -> list[str]:
    return [text.strip() for text in page.locator("#text mark").all_text_contents()]


def wait(page: Any) -> None:
    """Wait until nothing is going on."""
    sync_api.expect(page.locator("body")).to_have_attribute("aria-busy", "false")


def get_id(text: str) -> str:
    return f"t{[*DISHES].index(text)}"


def go_to(page: Any, text: str) -> None:
    """Search for a text, whatever became of it."""
    page.select_option("#status", "all")
    page.fill("#search", text)
    page.press("#search", "Enter")
    sync_api.expect(page.locator("#why")).to_contain_text(get_id(text))
    wait(page)
    page.keyboard.press("Escape")


def expect_decided(page: Any, number: int) -> None:
    sync_api.expect(page.locator("#bar")).to_have_js_property("value", number)


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def decide(page: Any, key: str) -> None:
    """Decide, and wait for the next text."""
    before = page.locator("#text").text_content()
    page.keyboard.press(key)
    sync_api.expect(page.locator("#text")).not_to_have_text(before)
    wait(page)


def read_decisions() -> list[tuple[str, str, str, int]]:
    with sqlite3.connect("corpus/reviews.db") as connection:
        return connection.execute(
            "SELECT reviewer, text_id, answer, undone FROM decisions ORDER BY id"
        ).fetchall()


def read_ents(path: str) -> dict[str, list[tuple[str, str]]]:
    docs = read_docs(Path(path), spacy.blank("en").vocab)
    return {doc.text: [(ent.text, ent.label_) for ent in doc.ents] for doc in docs}


def test_decisions_survive_and_reach_the_corpus(
    project: Path, serve_page: Callable[..., Served], open_page: Open
) -> None:
    server = serve_page("--reviewer", "anna")
    page = open_page(server.address)
    # Disputed first: its bowl is not trusted, and missing.
    shown = get_text(page)
    assert shown in (RAMEN, "Grandma's dumplings need no sauce.")
    go_to(page, RAMEN)
    assert get_marks(page) == ["ramenDISH"]
    press(page, "N", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight", "2")
    assert get_marks(page) == ["ramenDISH", "bowlEQUIPMENT"]
    press(page, "Control+ArrowLeft")  # its beginning
    assert get_marks(page) == ["ramenDISH", "deep bowlEQUIPMENT"]
    page.keyboard.press("a")
    expect_decided(page, 1)
    go_to(page, WOK)
    press(page, "n", "2")  # it is no dish
    assert get_marks(page) == ["wokEQUIPMENT", "paellaDISH"]
    press(page, "Control+z")
    assert get_marks(page) == ["wokDISH", "paellaDISH"]
    press(page, "n", "2", "a")
    expect_decided(page, 2)
    go_to(page, NOTHING)
    page.keyboard.press("x")
    expect_decided(page, 3)
    page.keyboard.press("u")
    expect_decided(page, 2)
    assert get_text(page) == NOTHING
    page.keyboard.press("x")
    expect_decided(page, 3)
    wanted = [
        ("anna", "t0", "accept", 0),
        ("anna", "t2", "accept", 0),
        ("anna", "t3", "reject", 1),
        ("anna", "t3", "reject", 0),
    ]
    assert read_decisions() == wanted
    page.reload()
    expect_decided(page, 3)
    server.kill()
    assert read_decisions() == wanted
    page.reload()
    expect_decided(page, 3)
    go_to(page, RAMEN)
    assert get_marks(page) == ["ramenDISH", "deep bowlEQUIPMENT"]
    assert page.noted == []

    assert "3 texts were reviewed by people: 1 of them" in annotate()
    ents = read_ents("corpus/annotated")
    assert ents[RAMEN] == [("ramen", "DISH"), ("deep bowl", "EQUIPMENT")]
    assert ents[WOK] == [("wok", "EQUIPMENT"), ("paella", "DISH")]
    assert NOTHING not in ents
    gold = [{"text": "Soup in a pan.", "spans": []}]
    srsly.write_jsonl("gold.jsonl", gold)
    call("split", "corpus/annotated", "gold.jsonl", "corpus", "--dev", "0.2")
    both = {**read_ents("corpus/train.spacy"), **read_ents("corpus/dev.spacy")}
    assert both[RAMEN] == [("ramen", "DISH"), ("deep bowl", "EQUIPMENT")]
    call("split", "corpus/annotated", "corpus", "--gold", "reviewed", "--dev", "0.2")
    assert set(read_ents("corpus/test.spacy")) == {RAMEN, WOK}
    assert RAMEN not in read_ents("corpus/train.spacy")


def test_mouse_marks_and_unmarks(
    project: Path, serve_page: Callable[..., Served], open_page: Open
) -> None:
    page = open_page(serve_page().address)
    go_to(page, NOTHING)
    tokens = page.locator("#text .token")
    for k, act in ((1, page.mouse.down), (2, page.mouse.up)):
        box = tokens.nth(k).bounding_box() or {}
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        act()
    page.get_by_role("button", name="DISH").click()
    assert get_marks(page) == ["to eatDISH"]
    page.get_by_role("button", name="End one token later").click()
    assert get_marks(page) == ["to eat todayDISH"]
    tokens.nth(0).click(modifiers=["Shift"])
    assert get_marks(page) == ["Nothing to eat todayDISH"]
    page.get_by_role("button", name="Delete").click()
    assert get_marks(page) == []
    page.get_by_role("button", name="Accept").click()
    expect_decided(page, 1)
    assert [row[2] for row in read_decisions()] == ["accept"]


def test_text_with_html_is_shown_as_text(served: Served, open_page: Open) -> None:
    page = open_page(served.address)
    go_to(page, SCRIPT)
    assert get_text(page) == SCRIPT
    assert page.title() != "got you"
    assert page.locator("#text b, #text script").count() == 0
    page.keyboard.press("g")
    assert "A <b>tool</b>" in page.locator("#guidelines").text_content()
    assert page.noted == []


def test_reasons_and_votes_stand_beside_each_span(
    served: Served, open_page: Open
) -> None:
    page = open_page(served.address)
    go_to(page, RAMEN)
    rows = page.locator("#opinions tbody tr").all_text_contents()
    (ramen,) = [row for row in rows if "ramen" in row]
    assert "trusted" in ramen
    assert "llm/0, llm/1" in ramen
    assert "is a noodle soup" in ramen
    assert sum("disputed" in row for row in rows) == 2
    page.get_by_role("button", name="Take deep bowl EQUIPMENT").click()
    assert get_marks(page) == ["ramenDISH", "deep bowlEQUIPMENT"]


def test_a_text_shown_to_the_teacher_is_in_its_prompts(
    project: Path, serve_page: Callable[..., Served], open_page: Open
) -> None:
    page = open_page(serve_page().address)
    go_to(page, WOK)
    press(page, "n", "Delete", "t")
    page.wait_for_selector("#lesson[open]")
    fields = page.locator("#lesson input")
    assert fields.first.input_value() == "is rice"
    fields.last.fill("is a pan")
    page.get_by_role("button", name="Add").click()
    sync_api.expect(page.locator("#notice")).not_to_be_empty()
    first, added = srsly.read_yaml("examples.yml")
    assert first["text"] == "We had goulash from the big pot."
    assert added["text"] == WOK
    spans = {span["text"]: (span["label"], span["reason"]) for span in added["spans"]}
    assert spans == {"wok": ("==NONE==", "is a pan"), "paella": ("DISH", "is rice")}
    assert "# One that is ours." in Path("examples.yml").read_text("utf8")


LONG, RIGHT_TO_LEFT = "Ramen in a wok. ", "12 كوبا من الأرز"
WHITE, APART = " \n\n kale \n", "Red \n wine"


@pytest.fixture(scope="module")
def odd_texts(
    annotated_project: Path, tmp_path_factory: pytest.TempPathFactory, nlp: Language
) -> Iterator[Served]:
    """A server of a long text, one from right to left, and two with white space."""
    folder = tmp_path_factory.mktemp("odd")
    shutil.copytree(annotated_project, folder, dirs_exist_ok=True)
    shutil.rmtree(folder / "corpus" / "annotated")
    docs = [nlp.make_doc(text) for text in (5000 * LONG, RIGHT_TO_LEFT, WHITE, APART)]
    docs[0].set_ents([Span(docs[0], k, k + 1, "DISH") for k in range(0, 25000, 50)])
    for doc in docs[1:]:
        doc.set_ents([])
    write_shards(docs, folder / "corpus" / "annotated")
    server = Served(folder=folder)
    yield server
    server.stop()


def find(page: Any, text: str) -> None:
    page.fill("#search", text)
    page.press("#search", "Enter")
    sync_api.expect(page.locator("#text")).to_contain_text(text)
    wait(page)


def test_key_in_a_long_text_is_answered_at_once(
    odd_texts: Served, open_page: Open
) -> None:
    page = open_page(odd_texts.address)
    find(page, LONG)
    press(page, "n")
    for key, expected in (
        ("n", "RamenDISH"),
        ("ArrowRight", "in"),
        ("2", "inEQUIPMENT"),
    ):
        limit = 3000 if key == "2" else 1500  # it changes the text
        assert page.evaluate(_PRESS, key) < limit, key
        assert page.locator("#text .chosen").all_text_contents() == [expected]


def test_chosen_span_is_not_hidden(odd_texts: Served, open_page: Open) -> None:
    page = open_page(odd_texts.address, 390)
    page.set_viewport_size({"width": 390, "height": 620})
    find(page, LONG)
    for _ in range(12):
        page.keyboard.press("n")
        span, bar = (
            page.locator(which).bounding_box() for which in ("mark.chosen", "#actions")
        )
        assert span["y"] + span["height"] <= bar["y"]


def test_label_does_not_turn_the_text(odd_texts: Served, open_page: Open) -> None:
    page = open_page(odd_texts.address)
    find(page, "كوبا")
    press(page, "ArrowRight", "2")
    assert get_marks(page) == ["12EQUIPMENT"]
    direction = "getComputedStyle(document.getElementById('text')).direction"
    assert page.evaluate(direction) == "rtl"


def test_white_space_is_no_part_of_a_span(odd_texts: Served, open_page: Open) -> None:
    page = open_page(odd_texts.address)
    find(page, "kale")
    press(page, "ArrowRight", "1")
    assert get_marks(page) == []
    sync_api.expect(page.locator("#notice")).to_have_text("There is only white space.")
    press(page, "Shift+ArrowRight", "Shift+ArrowRight", "1")
    assert get_marks(page) == ["kaleDISH"]


def test_edge_goes_over_white_space(odd_texts: Served, open_page: Open) -> None:
    page = open_page(odd_texts.address)
    find(page, "wine")
    press(page, "ArrowRight", "1", "Shift+ArrowRight")
    assert get_marks(page) == ["Red \n wineDISH"]
    press(page, "Shift+ArrowLeft")
    assert get_marks(page) == ["RedDISH"]


def test_undo_takes_back_what_was_changed(odd_texts: Served, open_page: Open) -> None:
    page = open_page(odd_texts.address)
    find(page, "كوبا")
    press(page, "ArrowRight", "1", "1", "1", "2", "2", "u")
    assert get_marks(page) == ["12DISH"]
    press(page, "n", "Delete", "2")  # what was deleted stays chosen
    assert get_marks(page) == ["12EQUIPMENT"]
    press(page, "u", "u", "u")
    assert get_marks(page) == []


def test_focus_stays_where_it_was(served: Served, open_page: Open) -> None:
    page = open_page(served.address)
    go_to(page, WOK)
    page.keyboard.press("n")
    for name in ("EQUIPMENT 2", "Take wok DISH", "Delete"):
        button = page.get_by_role("button", name=name)
        button.focus()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.tagName") == "BUTTON", name
        page.keyboard.press("n")


def test_drag_ends_with_its_text(odd_texts: Served, open_page: Open) -> None:
    page = open_page(odd_texts.address)
    find(page, LONG)
    page.locator("#text .token").nth(40).hover()
    page.mouse.down()
    find(page, "kale")
    page.locator("#text .token").nth(1).hover()
    press(page, "1")
    assert page.noted == []
    assert get_marks(page) == []


def test_two_reviewers_get_different_texts(
    project: Path, serve_page: Callable[..., Served], open_page: Open
) -> None:
    server = serve_page("--overlap", "0")
    one, other = open_page(server.address), open_page(server.address)
    other.fill("#reviewer", "ben")
    other.press("#reviewer", "Enter")
    sync_api.expect(other.locator("#text")).not_to_have_text(one.text_content("#text"))
    wait(other)
    seen = set()
    for _ in range(2):
        for page in (one, other):
            assert get_text(page) not in seen
            seen.add(get_text(page))
            decide(page, "a")
    assert len({row[0] for row in read_decisions()}) == 2
    assert len({row[1] for row in read_decisions()}) == 4


def test_a_server_that_is_gone_loses_nothing_on_the_page(
    project: Path, serve_page: Callable[..., Served], open_page: Open
) -> None:
    server = serve_page()
    page = open_page(server.address)
    go_to(page, WOK)
    press(page, "n", "2")
    server.process.kill()
    server.process.wait()
    page.keyboard.press("a")
    sync_api.expect(page.locator("#trouble")).not_to_be_empty()
    assert "does not answer" in page.text_content("#trouble")
    assert get_marks(page) == ["wokEQUIPMENT", "paellaDISH"]
    server.start(server.address.rstrip("/").rpartition(":")[2])
    page.keyboard.press("a")
    expect_decided(page, 1)
    assert [row[1:3] for row in read_decisions()] == [("t2", "accept")]


def test_categories_are_chosen_by_key(
    sorted_project: Path, serve_page: Callable[..., Served], open_page: Open
) -> None:
    page = open_page(serve_page("--reviewer", "anna").address)
    assert get_text(page) == "The waiter was rude."  # the disputed one is first
    page.keyboard.press("a")  # it has none yet
    sync_api.expect(page.locator("#trouble")).not_to_be_empty()
    assert "exactly one" in page.text_content("#trouble")
    page.locator("#labels button", has_text="BLAME").click()
    decide(page, "a")
    annotate()
    docs = read_docs(Path("corpus/annotated"), spacy.blank("en").vocab)
    cats = {doc.text: doc.cats for doc in docs}
    assert cats["The waiter was rude."] == {"PRAISE": 0.0, "BLAME": 1.0}


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_can_be_read_by_all(
    served: Served, open_page: Open, width: int, scheme: str
) -> None:
    page = open_page(served.address, width, scheme)
    press(page, "n", "?", "g")
    found = axe.Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa"]})
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.noted == []

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span

from instaner.corpus import PROVENANCE, write_shards
from instaner.decisions import Answer, Decision, Decisions
from instaner.llm.store import hash_prompt
from instaner.targets import ENTS, Target

pytest.importorskip("starlette")

from starlette.testclient import TestClient

from instaner.review.index import (
    CHECKER,
    Index,
    Opinion,
    Queue,
    build,
    find_target,
)
from instaner.review.review import Review, Settings, _lock
from instaner.review.server import make_app

DISH, POT = "DISH", "POT"
MakeReview = Callable[..., Review]


def make_doc(nlp: Language, text: str, *rows: tuple[str, str, str]) -> Doc:
    """A doc as `annotate` leaves it; each row is a surface, a label and a standing."""
    doc = nlp.make_doc(text)
    ents, spans = [], []
    for surface, label, standing in rows:
        start = text.index(surface)
        span = doc.char_span(start, start + len(surface), label=label)
        assert span is not None
        ents += [span] if standing == "trusted" else []
        votes = {"llm/0": "exact"} | ({"llm/1": ""} if standing == "trusted" else {})
        spans.append(
            {
                "start": start,
                "end": start + len(surface),
                "label": label,
                "votes": votes,
                "standing": standing,
                "score": 1.0 if standing == "trusted" else 0.5,
                "dispute": None if standing == "trusted" else "existence",
            }
        )
    doc.set_ents(ents)
    doc.user_data[PROVENANCE] = {"id": text.split()[0], "spans": spans}
    return doc


@pytest.fixture
def make_review(tmp_path: Path, nlp: Language) -> MakeReview:
    def make(*docs: Doc, **settings: Any) -> Review:
        source = tmp_path / "annotated"
        write_shards(docs, source)
        target = find_target(source)
        labels = target.labels or (DISH, POT)
        values = {"overlap": 0.0, **settings}
        decisions = Decisions(tmp_path / "reviews.db")
        decisions.set_target(target)
        index = Index(tmp_path / "index.db", decisions.path)
        build(index, source, target)
        settings_ = Settings(source, target._replace(labels=labels), "anna", **values)
        return Review(settings_, index, decisions)

    return make


@pytest.fixture
def review(make_review: MakeReview, nlp: Language) -> Review:
    return make_review(
        make_doc(nlp, "One ramen in a wok.", ("ramen", DISH, "trusted")),
        make_doc(nlp, "Two 100% tacos.", ("tacos", DISH, "disputed")),
        make_doc(nlp, "Three pots.", ("pots", POT, "trusted")),
        make_doc(nlp, "Four of nothing."),
    )


def open_client(review: Review, **options: Any) -> TestClient:
    client = TestClient(make_app(review, **options), base_url="http://127.0.0.1")
    client.index = review.index  # type: ignore[attr-defined]
    return client


@pytest.fixture
def client(review: Review) -> TestClient:
    return open_client(review)


def get_next(client: TestClient, **query: str) -> Any:
    reply = client.get("/api/next", params={"reviewer": "anna", **query})
    assert reply.status_code == 200, reply.text
    return reply.json()


def get_ids(client: TestClient, **query: str) -> list[str]:
    """RETURNS (List[str]): The ids of all texts that a filter leaves, in order."""
    ids = []
    item = get_next(client, **query)
    while item:
        ids.append(item["id"])
        after = f"{item['place']},{item['n']}"
        item = get_next(client, **query, after=after)
    return ids


def decide(client: TestClient, **body: Any) -> Any:
    values = {"n": 0, "reviewer": "anna", "answer": "accept", "marks": [], **body}
    item = client.index.get(values["n"]) if values["n"] in range(999) else None
    values.setdefault("key", hash_prompt(item.text) if item else "")
    return client.post("/api/decisions", json=values)


def span(first: int, last: int, label: str = DISH) -> dict[str, Any]:
    return {"first": first, "last": last, "label": label}


def test_disputed_texts_come_first(client: TestClient) -> None:
    ids = get_ids(client)
    assert ids[0] == "Two"
    assert set(ids) == {"One", "Two", "Three", "Four"}


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ({"label": POT}, {"Three"}),
        ({"voter": "llm/1"}, {"One", "Three"}),
        ({"search": "WOK"}, {"One"}),
        ({"search": "0%"}, {"Two"}),
        ({"search": "_"}, set()),
        ({"queue": "disputed"}, {"Two"}),
        ({"queue": "rest"}, {"One", "Three", "Four"}),
        ({"queue": "random"}, {"One", "Two", "Three", "Four"}),
        ({"status": "accepted"}, set()),
        ({"status": "all"}, {"One", "Two", "Three", "Four"}),
    ],
)
def test_filters(client: TestClient, query: dict[str, str], ids: set[str]) -> None:
    assert set(get_ids(client, **query)) == ids


def test_random_order_has_nothing_to_do_with_use(
    make_review: MakeReview, nlp: Language
) -> None:
    texts = [f"T{k} tacos." for k in range(40)]
    docs = [
        make_doc(nlp, text, ("tacos", DISH, "disputed" if k < 20 else "trusted"))
        for k, text in enumerate(texts)
    ]
    client = open_client(make_review(*docs))
    assert {int(name[1:]) < 20 for name in get_ids(client)[:20]} == {True}
    drawn = get_ids(client, queue="random")
    assert 4 <= sum(int(name[1:]) < 20 for name in drawn[:20]) <= 16
    assert get_next(client, queue="random")["queue"] == "random"


def test_what_is_decided_is_what_was_on_the_page(
    client: TestClient, review: Review
) -> None:
    item = get_next(client, search="ramen")
    reply = decide(client, n=item["n"], marks=[span(1, 5, POT)], seconds=2.04)
    assert reply.status_code == 200
    (decision,) = review.decisions.find("One ramen in a wok.", "ents")
    assert decision.marks == ((4, 18, POT),)
    assert decision.proposed == ((4, 9, DISH),)
    assert (decision.answer, decision.seconds) == (Answer.ACCEPT, 2.0)
    assert (decision.text_id, decision.queue) == ("One", "rest")
    shown = get_next(client, status="accepted")
    assert shown["marks"] == [span(1, 5, POT)]
    assert get_ids(client, status="accepted") == ["One"]
    assert "One" not in get_ids(client)


def test_chance_is_kept(client: TestClient, review: Review) -> None:
    decide(client, by_chance=True)
    (decision,) = review.decisions.find("One ramen in a wok.", "ents")
    assert decision.queue == "random"


def test_statuses(client: TestClient) -> None:
    for n, answer in enumerate(("accept", "reject", "skip")):
        decide(client, n=n, answer=answer)
    for status, name in (
        ("accepted", "One"),
        ("rejected", "Two"),
        ("skipped", "Three"),
    ):
        assert get_ids(client, status=status) == [name]
    assert get_ids(client) == ["Four"]
    progress = client.get("/api/progress", params={"reviewer": "anna"}).json()
    assert (progress["accepted"], progress["rejected"], progress["skipped"]) == (
        1,
        1,
        1,
    )
    assert progress["texts"] == 2


def test_undo_shows_the_text_with_its_marks(client: TestClient, review: Review) -> None:
    decide(client, n=0, marks=[span(3, 5)])
    item = client.post("/api/undo", json={"reviewer": "anna"}).json()
    assert (item["id"], item["marks"]) == ("One", [span(3, 5)])
    assert review.decisions.find("One ramen in a wok.", "ents") == []
    reply = client.post("/api/undo", json={"reviewer": "anna"})
    assert (reply.status_code, reply.json()) == (
        400,
        {"trouble": "There is nothing to undo."},
    )


def test_two_reviewers_are_not_shown_the_same(client: TestClient) -> None:
    mine = get_next(client)
    theirs = get_next(client, reviewer="ben")
    assert mine["id"] != theirs["id"]
    decide(client, n=mine["n"])
    assert mine["id"] not in get_ids(client, reviewer="ben")


def test_everybody_is_shown_what_overlaps(
    make_review: MakeReview, nlp: Language
) -> None:
    docs = [make_doc(nlp, f"T{k} tacos.") for k in range(20)]
    client = open_client(make_review(*docs, overlap=1.0))
    assert get_next(client)["id"] == get_next(client, reviewer="ben")["id"]
    decide(client, n=get_next(client)["n"])
    assert len(get_ids(client, reviewer="ben")) == 20


def test_what_everybody_is_shown_is_drawn_from_all(
    make_review: MakeReview, nlp: Language
) -> None:
    docs = [make_doc(nlp, f"T{k} tacos.") for k in range(300)]
    client = open_client(make_review(*docs, overlap=0.2))
    shown = []
    for reviewer in ["anna", "ben"] * 50:
        item = get_next(client, reviewer=reviewer)
        decide(client, n=item["n"], reviewer=reviewer)
        shown.append(item["id"])
    assert 3 <= len(shown) - len(set(shown)) <= 30  # of 50


def test_agreement(client: TestClient) -> None:
    decide(client, n=0, marks=[span(1, 2)])
    decide(client, n=0, marks=[span(1, 2), span(4, 5, POT)], reviewer="ben")
    decide(client, n=2, marks=[span(1, 2, POT)])
    found = client.get("/api/agreement").json()
    assert found["teacher"]["anna"]["f1"] == 1
    assert found["teacher"]["ben"]["f1"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["texts"] == 1
    assert found["people"]["f1"] == pytest.approx(2 / 3, abs=1e-4)


@pytest.mark.parametrize(
    ("body", "trouble"),
    [
        ({"n": 99}, "There is no text 99"),
        ({"key": "0"}, "The corpus has changed"),
        ({"n": "0"}, "n has to be a whole number"),
        ({"answer": "maybe"}, "answer has to be one of accept, reject, skip"),
        ({"marks": [span(1, 2, "CAR")]}, "label has to be one of DISH, POT"),
        ({"marks": [span(1, 99)]}, "Spans have to be in the text"),
        ({"marks": [span(2, 2)]}, "Spans have to be in the text"),
        ({"marks": [span(-1, 2)]}, "Spans have to be in the text"),
        ({"marks": [span(1, 3), span(2, 4)]}, "must not overlap"),
        ({"marks": "all"}, "marks have to be a list"),
        ({"reviewer": "a/b"}, "is no name for a reviewer"),
        ({"reviewer": None}, "A reviewer's name is needed"),
    ],
)
def test_a_bad_decision_is_refused(
    client: TestClient, review: Review, body: dict[str, Any], trouble: str
) -> None:
    reply = decide(client, **body)
    assert reply.status_code == 400
    assert trouble in reply.json()["trouble"]
    assert [*review.decisions.read("ents")] == []


def test_white_space_is_no_span(make_review: MakeReview, nlp: Language) -> None:
    client = open_client(make_review(nlp.make_doc("A \n wok")))
    for marks in ([span(0, 2)], [span(1, 2)], [span(1, 3)]):
        assert "white space" in decide(client, marks=marks).json()["trouble"]
    assert decide(client, marks=[span(0, 3)]).status_code == 200


def test_an_empty_text_is_no_dead_end(make_review: MakeReview, nlp: Language) -> None:
    client = open_client(make_review(nlp.make_doc(""), make_doc(nlp, "Tacos.")))
    assert len(get_ids(client)) == 2
    assert decide(client, n=0, answer="reject").status_code == 200
    assert get_ids(client) == ["Tacos."]


def test_undo_leaves_another_corpus_alone(client: TestClient, review: Review) -> None:
    other = Decision("Elsewhere.", "ents", "anna", Answer.ACCEPT)
    review.decisions.add(other)
    reply = client.post("/api/undo", json={"reviewer": "anna"})
    assert "is not undone" in reply.json()["trouble"]
    assert len(review.decisions.find("Elsewhere.", "ents")) == 1
    progress = client.get("/api/progress", params={"reviewer": "anna"}).json()
    assert progress["texts"] == 0  # of this corpus


@pytest.mark.parametrize("seconds", ["1e999", "-3", "true", '"x"'])
def test_an_odd_time_is_no_time(
    client: TestClient, review: Review, seconds: str
) -> None:
    key = hash_prompt("One ramen in a wok.")
    body = (
        f'{{"n": 0, "key": "{key}", "reviewer": "anna", "answer": "accept", "seconds": '
    )
    headers = {"Content-Type": "application/json"}
    client.post("/api/decisions", content=f"{body}{seconds}}}", headers=headers)
    (decision,) = review.decisions.find("One ramen in a wok.", "ents")
    assert decision.seconds is None
    assert client.get("/api/progress", params={"reviewer": "anna"}).status_code == 200


def test_a_teacher_that_takes_its_time_holds_up_nobody(review: Review) -> None:
    client = open_client(review)
    with review._trying:
        assert get_next(client) is not None
        assert decide(client).status_code == 200


def test_a_corpus_has_one_page(tmp_path: Path, nlp: Language) -> None:
    write_shards([nlp.make_doc("Tacos.")], tmp_path / "annotated")
    script = (
        "import sys, pathlib; from instaner.review.review import _lock;"
        "_lock(pathlib.Path(sys.argv[1]), pathlib.Path('annotated'))"
    )
    path = tmp_path / "index.lock"
    command = [sys.executable, "-c", script, str(path)]
    lock = _lock(path, tmp_path)
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "annotated is open on another page" in refused.stderr
    lock.close()
    subprocess.run(command, check=True)


@pytest.mark.parametrize("content", [b'{"n": 0', b"[]", b"\xff", b""])
def test_half_a_request_is_refused(client: TestClient, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    reply = client.post("/api/decisions", content=content, headers=headers)
    assert reply.status_code == 400
    assert "JSON" in reply.json()["trouble"]


def test_another_sites_form_is_refused(client: TestClient, review: Review) -> None:
    body = '{"n": 0, "reviewer": "anna", "answer": "accept", "marks": []}'
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        headers = {"Content-Type": kind}
        reply = client.post("/api/decisions", content=body, headers=headers)
        assert reply.status_code == 400
    assert [*review.decisions.read("ents")] == []


def test_another_name_that_points_here_is_refused(review: Review) -> None:
    client = TestClient(make_app(review), base_url="http://evil.example")
    assert client.get("/api/session").status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        "/../setup.cfg",
        "/..%2f..%2fsetup.cfg",
        "/page.css/../server.py",
        "/server.py",
        "/static/../../etc/passwd",
        "/api/..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
    ],
)
def test_no_other_file_can_be_read(client: TestClient, path: str) -> None:
    reply = client.get(path, params={"reviewer": "anna"})
    assert reply.status_code in (400, 404)
    assert "root:" not in reply.text


def test_with_a_token_nothing_is_shown_without_it(review: Review) -> None:
    client = open_client(review, host="0.0.0.0", token="a-secret")
    for path in ("/", "/page.js", "/api/session", "/api/next?reviewer=anna"):
        assert client.get(path).status_code == 403
    assert decide(client).status_code == 403
    assert client.get("/?token=a-secre").status_code == 403
    assert client.get("/", params={"token": "a-secret"}).status_code == 200
    assert client.get("/api/session").status_code == 200
    assert "a-secret" not in client.get("/").text


def test_no_script_but_our_own_may_run(client: TestClient) -> None:
    policy = client.get("/").headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self'" in policy
    assert "unsafe" not in policy


def test_a_student_that_disagrees_brings_texts_forward(
    review: Review, client: TestClient
) -> None:
    opinions = [Opinion(3, [(5, 7, POT)], 0.5), Opinion(0, [(4, 9, DISH)], -1)]
    review.index.add_opinions("student", Queue.DISAGREEMENT, opinions)
    assert get_ids(client)[:2] == ["Two", "Four"]
    review.index.add_opinions(CHECKER, Queue.SUSPICIOUS, [Opinion(2, [], 0.1)])
    assert get_ids(client)[:3] == ["Two", "Three", "Four"]
    assert get_ids(client, queue="disagreement") == ["Four"]
    (row,) = get_next(client, queue="disagreement")["candidates"]
    assert row["votes"] == {"student": ""}
    assert set(get_ids(client, voter="student")) == {"One", "Four"}


def test_spans_are_told_by_token_of_any_text(
    make_review: MakeReview, nlp: Language
) -> None:
    text = "  Crème brûlée 🍮\r\n\tוופל בלגי  "
    doc = make_doc(nlp, text, ("brûlée 🍮", DISH, "trusted"))
    item = get_next(open_client(make_review(doc)))
    shown = item["before"] + "".join(token + space for token, space in item["tokens"])
    assert shown == text
    (mark,) = item["marks"]
    pieces = item["tokens"][mark["first"] : mark["last"]]
    assert "".join(token + space for token, space in pieces).strip() == "brûlée 🍮"


@pytest.mark.parametrize("exclusive", [True, False])
def test_categories(
    make_review: MakeReview, nlp: Language, tmp_path: Path, exclusive: bool
) -> None:
    cats = {"A": 1.0, "B": 0.0} if exclusive else {"A": 0.9, "B": 0.8}
    docs = [nlp.make_doc("One."), nlp.make_doc("Two.")]
    for doc in docs:
        doc.cats = dict(cats)
    review = make_review(*docs)
    assert review.target == Target("cats", ("A", "B"), exclusive)
    client = open_client(review)
    labels = [mark["label"] for mark in get_next(client)["marks"]]
    assert labels == (["A"] if exclusive else ["A", "B"])
    reply = decide(client, marks=[{"label": "B"}, {"label": "A"}])
    assert reply.status_code == (400 if exclusive else 200)
    assert decide(client, marks=[{"label": "B"}]).status_code == 200
    (decision,) = review.decisions.find("One.", "cats")
    assert decision.marks == ((-1, 0, "B"),)
    assert client.get("/api/agreement").json()["teacher"]["anna"]["f1"] < 1


def test_a_corpus_of_ones_own_needs_no_votes(tmp_path: Path, nlp: Language) -> None:
    doc = nlp.make_doc("Tacos!")
    doc.set_ents([Span(doc, 0, 1, DISH)])
    write_shards([doc], tmp_path / "mine")
    assert find_target(tmp_path / "mine") == ENTS
    decisions = Decisions(tmp_path / "reviews.db")
    decisions.set_target(ENTS)
    index = Index(tmp_path / "index.db", decisions.path)
    build(index, tmp_path / "mine", ENTS)
    item = index.get(0)
    assert item is not None
    assert item.proposed == [(0, 5, DISH)]
    assert [row["label"] for row in item.candidates] == [DISH]


def test_too_few_texts_to_check_are_no_error(review: Review, tmp_path: Path) -> None:
    index = Index(tmp_path / "other.db", review.decisions.path)
    build(index, review.settings.source, ENTS, suspects=10)
    state = index.get_state()
    assert state["stage"] == "done"
    assert "Label errors were not looked for" in state["trouble"]


def test_label_errors_come_after_what_is_disputed(
    make_review: MakeReview, tmp_path: Path
) -> None:
    pytest.importorskip("cleanlab")
    nlp = spacy.blank("en")
    dishes = "stew curry paella ramen goulash risotto".split()
    rows = [(f"N{k} had {dishes[k % 6]} in a pot.", dishes[k % 6]) for k in range(30)]
    docs = [make_doc(nlp, text, (dish, DISH, "trusted")) for text, dish in rows]
    docs[7] = make_doc(nlp, rows[7][0], ("pot", DISH, "trusted"))
    review = make_review(*docs)
    index = Index(tmp_path / "other.db", review.decisions.path)
    build(index, review.settings.source, ENTS, suspects=100)
    item = index.get(7)
    assert item is not None
    assert item.queue is Queue.SUSPICIOUS
    assert CHECKER in index.get_names("voter")

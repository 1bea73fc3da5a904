import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import spacy
import srsly
from spacy.language import Language
from spacy.tokens import Doc, Span

from instaner.annotate import FAILED, Summary, annotate
from instaner.asking import TooManyFailures
from instaner.corpus import PROVENANCE, read_docs
from instaner.errors import InstaNERError
from instaner.generate import generate
from instaner.llm.store import hash_prompt
from instaner.pipeline import get_llms, load_teacher
from instaner.recheck import Suspect
from instaner.vote import Policy, Remedy, Rule

from .conftest import LABELS, ROOT, MakeTeacher, WriteRows
from .server import ChatServer, Faulty, complete, reply

_TEXT = "My wok is full of ramen."
_WOK = "1. wok | True | EQUIPMENT | a pan"
_RAMEN = "2. ramen | True | DISH | a soup"
_MARK = {"start": 3, "end": 6, "label": "EQUIPMENT"}


def _annotate(nlp: Language, texts: Path, **settings: Any) -> tuple[Summary, list[Doc]]:
    output = texts.with_name("annotated")
    summary = annotate(nlp, texts, output, **{"max_failures": 1, **settings})
    return summary, list(read_docs(output, nlp.vocab))


def _get_ents(doc: Doc) -> list[tuple[str, str]]:
    return [(ent.text, ent.label_) for ent in doc.ents]


def _get_provenance(doc: Doc) -> Any:
    # A DocBin gives tuples for lists.
    return srsly.json_loads(srsly.json_dumps(doc.user_data[PROVENANCE]))


def _get_missing(doc: Doc) -> list[str]:
    return [token.text for token in doc if token.ent_iob == 0]


def test_answer_becomes_entities(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_teacher({_TEXT: f"{_WOK}\n{_RAMEN}"})
    _, (doc,) = _annotate(nlp, write_rows({"text": _TEXT}))
    assert doc.text == _TEXT
    assert _get_ents(doc) == [("wok", "EQUIPMENT"), ("ramen", "DISH")]
    assert _get_missing(doc) == []


def test_texts_keep_their_answers(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    texts = [f"Wok number {n}" for n in range(300)]  # more than a batch
    nlp = make_teacher(
        {text: _WOK if n % 3 else "None" for n, text in enumerate(texts)}
    )
    rows = write_rows(*({"text": text} for text in texts))
    _, docs = _annotate(nlp, rows)
    assert [doc.text for doc in docs] == texts
    assert [bool(doc.ents) for doc in docs] == [bool(n % 3) for n in range(300)]


def test_samples_that_disagree_are_disputed(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_teacher({_TEXT: [f"{_WOK}\n{_RAMEN}", _WOK]})
    _, (doc,) = _annotate(nlp, write_rows({"text": _TEXT}), samples=2)
    assert (_get_ents(doc), _get_missing(doc)) == ([("wok", "EQUIPMENT")], ["ramen"])


def test_every_llm_component_votes(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_teacher({_TEXT: _WOK}, names=("a", "b"))
    summary, (doc,) = _annotate(nlp, write_rows({"text": _TEXT}))
    assert summary.voters == ["a/0", "b/0"]
    votes = _get_provenance(doc)["spans"][0]["votes"]
    assert votes == {"a/0": "exact", "b/0": "exact"}


def test_marks_of_the_writer_vote(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_teacher({_TEXT: f"{_WOK}\n{_RAMEN}"})
    _, (doc,) = _annotate(nlp, write_rows({"text": _TEXT, "spans": [_MARK]}))
    assert (_get_ents(doc), _get_missing(doc)) == ([("wok", "EQUIPMENT")], ["ramen"])


def test_marks_off_the_tokens_are_counted(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_teacher({_TEXT: _WOK})
    spans = [{**_MARK, "end": 5}, _MARK, {**_MARK, "label": "DISH"}]
    summary, _ = _annotate(nlp, write_rows({"text": _TEXT, "spans": spans}))
    by_generator = {
        (status, label): count
        for (voter, status, label), count in summary.readings.items()
        if voter == "generator"
    }
    assert by_generator == {
        ("off token", "EQUIPMENT"): 1,
        ("exact", "DISH"): 1,
        ("overlap", "EQUIPMENT"): 1,
    }


def test_texts_for_testing_are_left_out(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    rows = write_rows({"text": _TEXT}, {"text": "Unknown.", "split": "test"})
    summary, docs = _annotate(make_teacher({_TEXT: _WOK}), rows)
    assert (summary.texts, summary.held_out, len(docs)) == (1, 1, 1)


@pytest.mark.parametrize("answer", ["", "I am sorry, but I cannot do that."])
def test_text_without_an_answer_is_left_out(
    make_teacher: MakeTeacher, write_rows: WriteRows, answer: str
) -> None:
    nlp = make_teacher({_TEXT: _WOK, "Other": answer})
    rows = write_rows({"text": _TEXT}, {"id": "x", "text": "Other", "spans": []})
    summary, docs = _annotate(nlp, rows)
    assert (summary.unanswered, [doc.text for doc in docs]) == (["x"], [_TEXT])


def test_answer_that_cannot_be_read_does_not_vote(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_teacher({_TEXT: [_WOK, "I am sorry."]})
    _, (doc,) = _annotate(nlp, write_rows({"text": _TEXT}), samples=2)
    assert _get_provenance(doc)["voters"] == ["llm/0"]
    assert _get_ents(doc) == [("wok", "EQUIPMENT")]


def test_answer_that_says_no_entities_votes(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_teacher({_TEXT: [_WOK, "No entities found."]})
    _, (doc,) = _annotate(nlp, write_rows({"text": _TEXT}), samples=2)
    assert _get_provenance(doc)["voters"] == ["llm/0", "llm/1"]
    assert (_get_ents(doc), _get_missing(doc)) == ([], ["wok"])


def test_what_made_no_span_is_listed(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_teacher({_TEXT: f"{_WOK}\n2. sushi | True | DISH | fish"})
    summary, _ = _annotate(nlp, write_rows({"id": "x", "text": _TEXT}))
    assert summary.unread == [
        {
            "id": "x",
            "voter": "llm/0",
            "status": "not in text",
            "text": "sushi",
            "label": "DISH",
        }
    ]


def test_answers_of_spacy_llms_task_are_accounted_for(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_teacher({_TEXT: f"{_WOK}\n2. something"}, task="spacy.NER.v3")
    summary, _ = _annotate(nlp, write_rows({"text": _TEXT}))
    assert summary.readings["llm/0", "unreadable", ""] == 1
    assert summary.unaccounted == set()


class _FullStops:
    """A task of someone else's: no shards, no account."""

    def generate_prompts(self, docs: Iterable[Doc]) -> Iterable[str]:
        return (doc.text for doc in docs)

    def parse_responses(
        self, docs: Iterable[Doc], responses: Iterable[Iterable[str]]
    ) -> Iterable[Doc]:
        for doc, (response,) in zip(docs, responses, strict=True):
            doc.set_ents([Span(doc, 1, 2, response)])
            yield doc


def test_any_task_can_annotate(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_teacher({})
    ((_, llm),) = get_llms(nlp)
    llm._task = _FullStops()
    llm._model = lambda prompts: [["TOOL"] for _ in prompts]
    summary, (doc,) = _annotate(nlp, write_rows({"text": _TEXT}))
    assert _get_ents(doc) == [("wok", "TOOL")]
    assert summary.unaccounted == {"llm/0"}


def test_doc_says_where_it_comes_from(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_teacher({_TEXT: _WOK})
    _, (doc,) = _annotate(nlp, write_rows({"id": "x", "brief": "b", "text": _TEXT}))
    ((_, llm),) = get_llms(nlp)
    ((prompts, _),) = llm.task.generate_prompts([nlp.make_doc(_TEXT)])
    assert _get_provenance(doc) == {
        "id": "x",
        "brief": "b",
        "voters": ["llm/0"],
        "prompts": {"llm/0": [hash_prompt(prompt) for prompt in prompts]},
        "spans": [
            {
                **_MARK,
                "votes": {"llm/0": "exact"},
                "reasons": {"llm/0": "a pan"},
                "standing": "trusted",
                "score": 1.0,
                "dispute": None,
            }
        ],
    }


def test_spans_of_each_voter_stay(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_teacher({_TEXT: [f"{_WOK}\n{_RAMEN}", "No entities"]})
    _, (doc,) = _annotate(nlp, write_rows({"text": _TEXT, "spans": [_MARK]}), samples=2)
    spans = {v: [(s.text, s.label_) for s in group] for v, group in doc.spans.items()}
    assert spans == {
        "generator": [("wok", "EQUIPMENT")],
        "llm/0": [("wok", "EQUIPMENT"), ("ramen", "DISH")],
        "llm/1": [],
    }


def test_dispute_is_kept_and_counted(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_teacher({_TEXT: [_WOK, "1. wok | True | DISH | food"]})
    summary, (doc,) = _annotate(nlp, write_rows({"text": _TEXT}), samples=2)
    spans = _get_provenance(doc)["spans"]
    assert [(s["standing"], s["dispute"], s["score"]) for s in spans] == [
        ("disputed", "label", 0.5),
        ("disputed", "label", 0.5),
    ]
    assert summary.disputes == {"label": 2}
    assert summary.disputed_share == 1


def test_policy_is_in_the_config(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_teacher({_TEXT: [_WOK, _WOK, "No entities"]})
    nlp.config = {**nlp.config, "vote": {"rule": "majority"}}
    _, (doc,) = _annotate(nlp, write_rows({"text": _TEXT}), samples=3)
    assert _get_ents(doc) == [("wok", "EQUIPMENT")]


def test_default_is_missing_annotation_unless_all_agree(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_teacher({_TEXT: [_WOK, _WOK, "No entities"]})
    _, (doc,) = _annotate(nlp, write_rows({"text": _TEXT}), samples=3)
    assert (_get_ents(doc), _get_missing(doc)) == ([], ["wok"])


def test_weight_of_a_voter_that_is_not_there_is_an_error(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    policy = Policy(Rule.MAJORITY, weights={"ruler": 2})
    message = 'no voter "ruler". The voters are generator, llm, llm/0'
    rows = write_rows({"text": _TEXT, "spans": []})
    with pytest.raises(InstaNERError, match=message):
        _annotate(make_teacher({_TEXT: _WOK}), rows, policy=policy)
    assert not rows.with_name("annotated").exists()


def test_people_decide(make_teacher: MakeTeacher, write_rows: WriteRows) -> None:
    nlp = make_teacher({_TEXT: f"{_WOK}\n{_RAMEN}"})
    rows = write_rows({"text": _TEXT, "votes": {"human": [_MARK]}})
    _, (doc,) = _annotate(nlp, rows)
    assert (_get_ents(doc), _get_missing(doc)) == ([("wok", "EQUIPMENT")], [])


def test_people_need_no_answer(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_teacher({_TEXT: "", "Other": "None"})
    rows = write_rows({"text": _TEXT, "votes": {"human": [_MARK]}}, {"text": "Other"})
    _, docs = _annotate(nlp, rows)
    assert [_get_ents(doc) for doc in docs] == [[("wok", "EQUIPMENT")], []]


def test_text_with_a_dispute_can_be_left_out(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_teacher({_TEXT: [_WOK, "None"], "Other": ["No entities"] * 2})
    rows = write_rows({"id": "x", "text": _TEXT}, {"text": "Other"})
    policy = Policy(disputed=Remedy.TEXT)
    summary, docs = _annotate(nlp, rows, samples=2, policy=policy)
    assert (summary.disputed, [doc.text for doc in docs]) == (["x"], ["Other"])


def test_weights_can_be_estimated(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    texts = [f"Wok number {n}." for n in range(20)]
    answers = [[_WOK, _WOK if n else "None"] for n in range(20)]
    nlp = make_teacher(dict(zip(texts, answers, strict=True)))
    rows = write_rows(*({"text": text} for text in texts))
    policy = Policy(Rule.ESTIMATED, trust=0.5)
    _, docs = _annotate(nlp, rows, samples=2, policy=policy)
    (span,) = _get_provenance(docs[0])["spans"]
    assert 0 < span["score"] < 1
    assert _get_provenance(docs[1])["spans"][0]["score"] > span["score"]


def test_agreement_is_measured(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_teacher({_TEXT: [f"{_WOK}\n{_RAMEN}", _WOK]})
    summary, _ = _annotate(nlp, write_rows({"text": _TEXT}), samples=2)
    agreement = summary.to_json()["agreement"]
    assert agreement["f1"] == pytest.approx(2 / 3, abs=1e-4)
    assert 0 < agreement["alpha"] < 1
    assert agreement["pairs"] == [{"voters": ["llm/0", "llm/1"], "f1": 0.6667}]


def test_components_before_the_teacher_run(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_teacher({_TEXT: _WOK})
    seen = []

    @Language.component("tests_see")
    def see(doc: Doc) -> Doc:
        seen.append(doc.text)
        return doc

    nlp.add_pipe("tests_see", first=True)
    _annotate(nlp, write_rows({"text": _TEXT}))
    assert seen == [_TEXT]


def test_summary_becomes_json(make_teacher: MakeTeacher, write_rows: WriteRows) -> None:
    summary, _ = _annotate(make_teacher({_TEXT: _WOK}), write_rows({"text": _TEXT}))
    data = summary.to_json()
    assert data["readings"] == [
        {"voter": "llm/0", "status": "exact", "label": "EQUIPMENT", "count": 1}
    ]
    assert data["standings"] == [
        {"label": "EQUIPMENT", "standing": "trusted", "count": 1}
    ]


def test_unknown_prompt_names_the_text_and_leaves_the_old_shards(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    rows = write_rows({"text": _TEXT})
    _annotate(make_teacher({_TEXT: _WOK}), rows)
    rows = write_rows({"text": _TEXT}, {"id": "x", "text": "Other"})
    nlp = make_teacher({_TEXT: _WOK})
    with pytest.raises(InstaNERError, match="Text x: No answer"):
        _annotate(nlp, rows)
    docs = read_docs(rows.with_name("annotated"), nlp.vocab)
    assert [doc.text for doc in docs] == [_TEXT]


@pytest.mark.parametrize("rows", [[], [{"text": _TEXT, "split": "test"}]])
def test_no_text_is_an_error_and_no_folder(
    make_teacher: MakeTeacher, write_rows: WriteRows, rows: list[dict[str, str]]
) -> None:
    path = write_rows(*rows)
    with pytest.raises(InstaNERError, match=f"None of the {len(rows)} texts in .*rows"):
        _annotate(make_teacher({}), path)
    assert not path.with_name("annotated").exists()


def test_demo_texts_are_all_answered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    texts = tmp_path / "texts.jsonl"
    generate(load_teacher("configs/generator.cfg"), Path("assets/briefs.jsonl"), texts)
    summary, docs = _annotate(load_teacher("configs/teacher.cfg"), texts)
    assert (summary.texts, summary.held_out) == (1056, 144)
    assert (len(docs), summary.unanswered, summary.unread) == (1056, [], [])


@pytest.mark.parametrize(
    "answer",
    [
        "Here you go:\n1. box | False | ==NONE== | packaging",
        "Here you go:\nNo entities found.",
    ],
)
def test_preface_does_not_make_an_answer_unreadable(
    answer: str,
    make_teacher: MakeTeacher,
    write_rows: WriteRows,
    tmp_path: Path,
) -> None:
    text = "Ate it from the box."
    summary = annotate(
        make_teacher({text: answer}), write_rows({"text": text}), tmp_path / "out"
    )
    assert (summary.texts, summary.unread) == (1, [])


def test_mark_on_white_space_is_no_vote(
    make_teacher: MakeTeacher, write_rows: WriteRows, tmp_path: Path
) -> None:
    text = "A  wok."
    mark = {"start": 2, "end": 3, "label": "DISH"}
    summary = annotate(
        make_teacher({text: "No entities"}),
        write_rows({"text": text, "spans": [mark]}),
        tmp_path / "out",
    )
    assert [row["status"] for row in summary.unread] == ["off token"]
    assert not summary.standings


def _make_live(server: ChatServer, **settings: Any) -> Language:
    nlp = spacy.blank("en")
    model = {
        "@llm_models": "instaner.Chat.v1",
        "name": "m",
        "base_url": server.url,
        "max_retries": 0,
        **settings,
    }
    task = {"@llm_tasks": "instaner.NER.v1", "labels": LABELS}
    nlp.add_pipe("llm", config={"task": task, "model": model})
    return nlp


def _number(write_rows: WriteRows, count: int) -> Path:
    return write_rows(*({"id": f"{n}", "text": f"Wok {n}."} for n in range(count)))


def _read_shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.spacy"))}


def test_failures_are_listed(make_teacher: MakeTeacher, write_rows: WriteRows) -> None:
    nlp = make_teacher({_TEXT: [_WOK, "I am sorry."], "Other": ["", _WOK]})
    rows = write_rows({"id": "x", "text": _TEXT}, {"id": "y", "text": "Other"})
    summary, docs = _annotate(nlp, rows, samples=2)
    assert len(docs) == 2
    assert summary.to_json()["failures"] == {"unreadable answer": 1, "empty answer": 1}
    assert list(srsly.read_jsonl(rows.with_name("annotated") / FAILED)) == [
        {
            "id": "x",
            "voter": "llm/1",
            "reason": "unreadable answer",
            "detail": "I am sorry.",
        },
        {"id": "y", "voter": "llm/0", "reason": "empty answer", "detail": ""},
    ]


def test_server_errors_are_listed(
    chat_server: ChatServer, write_rows: WriteRows
) -> None:
    chat_server.behave = lambda body: (
        reply(500, {"error": {"message": "Overloaded"}})
        if "Wok 3" in body["messages"][-1]["content"]
        else complete(_WOK)
    )
    rows = _number(write_rows, 6)
    summary, docs = _annotate(_make_live(chat_server), rows)
    assert (len(docs), summary.unanswered) == (5, ["3"])
    (row,) = srsly.read_jsonl(rows.with_name("annotated") / FAILED)
    assert (row["id"], row["voter"], row["reason"]) == ("3", "llm/0", "server error")
    assert "Overloaded" in row["detail"]


@pytest.mark.parametrize("old", [False, True])
def test_too_many_failures_leave_the_old_shards_and_a_list(
    make_teacher: MakeTeacher, write_rows: WriteRows, old: bool
) -> None:
    rows = write_rows({"id": "x", "text": _TEXT})
    folder = rows.with_name("annotated")
    if old:
        _annotate(make_teacher({_TEXT: _WOK}), rows)
    before = _read_shards(folder)
    assert bool(before) is old
    nlp = make_teacher({_TEXT: _WOK, "a": "", "b": "", "c": "?"})
    rows = write_rows(*({"id": text, "text": text} for text in (_TEXT, "a", "b", "c")))
    message = r"3 of 4 answers failed \(empty answer: 2, unreadable answer: 1\)"
    with pytest.raises(TooManyFailures, match=message):
        annotate(nlp, rows, folder, max_failures=0.7)
    assert _read_shards(folder) == before
    assert [row["id"] for row in srsly.read_jsonl(folder / FAILED)] == ["a", "b", "c"]


def test_clean_run_removes_the_list_of_failures(
    chat_server: ChatServer, write_rows: WriteRows
) -> None:
    chat_server.behave = Faulty(lambda body: _WOK, server_error=0.4, sticky=True)
    rows = _number(write_rows, 20)
    failed = rows.with_name("annotated") / FAILED
    with pytest.raises(TooManyFailures, match="of 20 answers failed"):
        _annotate(_make_live(chat_server), rows, max_failures=0.05)
    number = len(list(srsly.read_jsonl(failed)))
    asked = len(chat_server.requests)
    chat_server.behave = lambda body: complete(_WOK)
    _, docs = _annotate(_make_live(chat_server), rows, max_failures=0.05)
    assert len(docs) == 20
    assert not failed.exists()
    assert len(chat_server.requests) - asked == number  # the failed ones alone


@pytest.mark.parametrize("max_failures", [0, 0.05])
def test_failures_up_to_the_share_pass(
    chat_server: ChatServer, write_rows: WriteRows, max_failures: float
) -> None:
    chat_server.behave = lambda body: (
        complete("") if "Wok 7" in body["messages"][-1]["content"] else complete(_WOK)
    )
    rows = _number(write_rows, 20)
    nlp = _make_live(chat_server)
    if max_failures:
        _, docs = _annotate(nlp, rows, max_failures=max_failures)
        assert len(docs) == 19
    else:
        with pytest.raises(TooManyFailures, match="1 of 20 answers failed"):
            _annotate(nlp, rows, max_failures=max_failures)


def test_second_run_asks_nothing_and_writes_the_same(
    chat_server: ChatServer, write_rows: WriteRows
) -> None:
    chat_server.behave = Faulty(lambda body: _WOK, latency=0.003, jitter=0.003)
    rows = _number(write_rows, 10)
    written, bills = [], []
    for number in (1, 8):
        nlp = _make_live(chat_server, max_concurrency=number)
        summary, _ = _annotate(nlp, rows, samples=2)
        written.append(_read_shards(rows.with_name("annotated")))
        bills.append([(b["answers"], b["stored"]) for b in summary.bills])
    assert len(chat_server.requests) == 20
    assert written[0]
    assert written[0] == written[1]
    assert bills == [[(20, 0)], [(0, 20)]]


@pytest.mark.parametrize("own", [False, True])
def test_store_is_beside_the_output_unless_the_config_has_one(
    chat_server: ChatServer, write_rows: WriteRows, tmp_path: Path, own: bool
) -> None:
    chat_server.behave = lambda body: complete(_WOK)
    settings = {"store": str(tmp_path / "own" / "mine.db")} if own else {}
    _annotate(_make_live(chat_server, **settings), _number(write_rows, 2))
    assert (tmp_path / "responses.db").exists() is not own
    assert (tmp_path / "own" / "mine.db").exists() is own


def test_components_have_stored_answers_of_their_own(
    chat_server: ChatServer, write_rows: WriteRows
) -> None:
    replies = {"a": _WOK, "b": "No entities"}
    chat_server.behave = lambda body: complete(replies[body["model"]])
    nlp = spacy.blank("en")
    for name in replies:
        model = {
            "@llm_models": "instaner.Chat.v1",
            "name": name,
            "base_url": chat_server.url,
        }
        task = {"@llm_tasks": "instaner.NER.v1", "labels": LABELS}
        nlp.add_pipe("llm", name=name, config={"task": task, "model": model})
    summary, docs = _annotate(nlp, _number(write_rows, 3))
    assert [bill["model"] for bill in summary.bills] == ["a", "b"]
    assert len(chat_server.requests) == 6
    assert [_get_missing(doc) for doc in docs] == [["Wok"]] * 3


def test_end_of_the_run_leaves_the_old_shards_and_keeps_the_answers(
    chat_server: ChatServer, write_rows: WriteRows
) -> None:
    chat_server.behave = lambda body: complete(_WOK)
    _annotate(_make_live(chat_server), _number(write_rows, 2))
    chat_server.behave = lambda body: (
        complete(_WOK) if len(chat_server.requests) < 6 else reply(402, {})
    )
    rows = _number(write_rows, 20)
    before = _read_shards(rows.with_name("annotated"))
    nlp = _make_live(chat_server, max_concurrency=1)
    with pytest.raises(InstaNERError, match="Top up the account"):
        _annotate(nlp, rows)
    assert _read_shards(rows.with_name("annotated")) == before
    chat_server.behave = lambda body: complete(_WOK)
    _annotate(_make_live(chat_server), rows)
    assert len(chat_server.paid) == 20


def test_list_of_failures_is_there_when_all_fail(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    rows = write_rows({"text": _TEXT})
    with pytest.raises(InstaNERError, match="All 1 answers failed.*failed.jsonl"):
        _annotate(make_teacher({_TEXT: "I am sorry."}), rows)
    (row,) = srsly.read_jsonl(rows.with_name("annotated") / FAILED)
    assert row["reason"] == "unreadable answer"


_ASK = Policy(disputed=Remedy.ASK)
_AGAIN = "You check how a text was "


def _behave(samples: list[str], again: str) -> Any:
    """The samples about a text differ; the answer to the second question is given."""
    count = iter(range(1000))

    def answer(body: dict[str, Any]) -> Any:
        if body["messages"][0]["content"].startswith(_AGAIN):
            return complete(again)
        return complete(samples[next(count) % len(samples)])

    return answer


@pytest.mark.parametrize(
    ("again", "ents", "missing", "outcome"),
    [
        ("1", [("wok", "EQUIPMENT")], [], "entity"),
        ("2", [], [], "no entity"),
        ("is full | DISH", [("is full", "DISH")], [], "entity"),
        ("I cannot say.", [], ["wok"], "undecided"),
        ("", [], ["wok"], "undecided"),
    ],
)
def test_teacher_is_asked_again(
    chat_server: ChatServer,
    write_rows: WriteRows,
    again: str,
    ents: list[tuple[str, str]],
    missing: list[str],
    outcome: str,
) -> None:
    text = "My wok is full."
    again = again.replace("is full", "wok is")
    chat_server.behave = _behave([_WOK, "No entities"], again)
    nlp = _make_live(chat_server, max_concurrency=1)
    rows = write_rows({"id": "x", "text": text})
    summary, (doc,) = _annotate(nlp, rows, samples=2, policy=_ASK)
    ents = [(surface.replace("is full", "wok is"), label) for surface, label in ents]
    assert (_get_ents(doc), _get_missing(doc)) == (ents, missing)
    assert summary.asked_again == {outcome: 1}
    assert len(chat_server.requests) == 3
    provenance = _get_provenance(doc)
    assert len(provenance["prompts"]["llm/again"]) == 1
    (told,) = provenance["again"]
    assert (told["start"], told["end"]) == (3, 6)
    assert bool(told["voters"]) is (outcome != "undecided")
    if outcome == "entity":
        assert any("llm/again" in span["votes"] for span in provenance["spans"])


def test_answer_to_the_second_question_that_cannot_be_used_is_listed(
    chat_server: ChatServer, write_rows: WriteRows
) -> None:
    rows = write_rows({"id": "x", "text": _TEXT})
    for again, wanted in (("", "empty answer"), ("Well.", "unreadable answer")):
        chat_server.behave = _behave([_WOK, "No entities"], again)
        nlp = _make_live(chat_server, max_concurrency=1, params={"seed": len(again)})
        summary, _ = _annotate(nlp, rows, samples=2, policy=_ASK)
        listed = [(r["voter"], r["reason"]) for r in summary.failures.rows]
        assert listed == [("llm/again", wanted)]


def test_only_disputed_places_are_asked_about_again(
    chat_server: ChatServer, write_rows: WriteRows
) -> None:
    chat_server.behave = _behave([f"{_WOK}\n{_RAMEN}", _WOK], "1")
    nlp = _make_live(chat_server, max_concurrency=1)
    rows = write_rows({"text": _TEXT})
    _, (doc,) = _annotate(nlp, rows, samples=2, policy=_ASK)
    messages = [body["messages"] for _, _, body in chat_server.requests]
    (again,) = [m for m in messages if m[0]["content"].startswith(_AGAIN)]
    assert "full of [[ramen]]." in again[-1]["content"]
    assert _get_ents(doc) == [("wok", "EQUIPMENT"), ("ramen", "DISH")]
    assert [row["reasons"] for row in _get_provenance(doc)["spans"]] == [
        {"llm/0": "a pan", "llm/1": "a pan"},
        {"llm/0": "a soup"},
    ]


def test_second_question_is_asked_once(
    chat_server: ChatServer, write_rows: WriteRows
) -> None:
    chat_server.behave = _behave([_WOK, "No entities"], "1")
    rows = write_rows({"text": _TEXT})
    written = []
    for _ in range(2):
        nlp = _make_live(chat_server, max_concurrency=1)
        _annotate(nlp, rows, samples=2, policy=_ASK)
        written.append(_read_shards(rows.with_name("annotated")))
    assert len(chat_server.requests) == 3
    assert written[0] == written[1]


def test_failed_answers_stay_failed_when_the_teacher_is_asked_again(
    chat_server: ChatServer, write_rows: WriteRows
) -> None:
    def answer(body: dict[str, Any]) -> Any:
        content = body["messages"][-1]["content"]
        if body["messages"][0]["content"].startswith(_AGAIN):
            return complete("1")
        return reply(500, {}) if "Wok 3" in content else complete(_WOK)

    chat_server.behave = answer
    rows = write_rows(
        *({"id": f"{n}", "text": f"Wok {n}.", "spans": []} for n in range(6))
    )
    summary, docs = _annotate(_make_live(chat_server), rows, policy=_ASK)
    assert (len(docs), summary.unanswered) == (5, ["3"])
    assert summary.asked_again == {"entity": 5}
    assert len(summary.failures.rows) == 1


_NAMES = "Ann Bob Cem Dora Eve Finn Gina Hugo Ines Jan Kim Leo Mia Nils Ola Pam".split()


def test_suspected_label_errors_are_asked_about(
    chat_server: ChatServer, write_rows: WriteRows
) -> None:
    texts = [f"{name} fries {n} eggs in a wok." for name in _NAMES for n in range(8)]
    wrong = texts[50]

    def answer(body: dict[str, Any]) -> Any:
        content = body["messages"][-1]["content"]
        if "[[wok]]" in content:  # in the wrong text alone is the student right
            reading = '"wok" is EQUIPMENT'
            (line,) = [row for row in content.splitlines() if reading in row]
            return complete(line[0])
        if "[[" in content:
            return complete("1")
        return complete(_WOK.replace("EQUIPMENT", "DISH") if wrong in content else _WOK)

    chat_server.behave = answer
    rows = write_rows(*({"id": t, "text": t} for t in texts))
    summary, docs = _annotate(_make_live(chat_server), rows, recheck=3)
    first = summary.rechecked[0]
    assert (first["id"], first["text"]) == (wrong, "wok")
    assert first["before"] == [{"text": "wok", "label": "DISH"}]
    assert first["after"] == [{"text": "wok", "label": "EQUIPMENT"}]
    assert len(summary.rechecked) <= 3
    assert {tuple(_get_ents(doc)) for doc in docs} == {(("wok", "EQUIPMENT"),)}
    assert summary.standings["EQUIPMENT", "trusted"] == len(texts)
    (doc,) = [doc for doc in docs if doc.text == wrong]
    spans = {s["label"]: s for s in _get_provenance(doc)["spans"]}
    assert spans["DISH"]["standing"] == "dropped"
    assert spans["EQUIPMENT"]["votes"] == {"llm/again": ""}


def test_missing_cleanlab_is_said_before_anything_is_asked(
    chat_server: ChatServer, write_rows: WriteRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab.count", None)
    with pytest.raises(InstaNERError, match="pip install"):
        _annotate(_make_live(chat_server), _number(write_rows, 3), recheck=1)
    assert chat_server.requests == []


def test_answer_that_contradicts_a_trusted_span_is_not_used(
    chat_server: ChatServer, write_rows: WriteRows
) -> None:
    text = "A wok ramen."
    chat_server.behave = _behave([f"{_WOK}\n{_RAMEN}", _WOK], "wok ramen | DISH")
    nlp = _make_live(chat_server, max_concurrency=1)
    rows = write_rows({"text": text})
    summary, (doc,) = _annotate(nlp, rows, samples=2, policy=_ASK)
    assert (_get_ents(doc), _get_missing(doc)) == ([("wok", "EQUIPMENT")], ["ramen"])
    assert summary.asked_again == {"undecided": 1}


def test_what_people_decided_is_not_asked_about(
    chat_server: ChatServer,
    write_rows: WriteRows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    suspect = Suspect(0, 3, 6, ((3, 6, "EQUIPMENT"),), (), 0.0)
    module = "instaner.annotate.find_suspects"
    monkeypatch.setattr(module, lambda *_, **__: [suspect])
    chat_server.behave = _behave([_WOK], "2")
    rows = write_rows({"text": _TEXT, "votes": {"human": [_MARK]}})
    summary, (doc,) = _annotate(_make_live(chat_server), rows, recheck=5)
    assert (_get_ents(doc), summary.rechecked) == ([("wok", "EQUIPMENT")], [])
    assert len(chat_server.requests) == 1


def test_failures_are_told_before_errors_are_looked_for(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    rows = write_rows({"text": _TEXT})
    with pytest.raises(TooManyFailures, match="All 1 answers failed"):
        _annotate(make_teacher({_TEXT: ""}), rows, recheck=5)
    assert (rows.with_name("annotated") / FAILED).exists()


_INTENTS = ["BILL", "SHIP", "SIZE"]


def _make_classifier(server: ChatServer, *, exclusive: bool = True) -> Language:
    nlp = _make_live(server, max_concurrency=1)
    config = nlp.get_pipe_config("llm")
    nlp.remove_pipe("llm")
    task = {
        "@llm_tasks": "spacy.TextCat.v3",
        "labels": _INTENTS,
        "exclusive_classes": exclusive,
    }
    nlp.add_pipe("llm", config={"task": task, "model": config["model"]})
    return nlp


@pytest.mark.parametrize(
    ("exclusive", "samples", "again", "cats", "outcome"),
    [
        (True, ["BILL", "SHIP"], "2", {"BILL": 0, "SHIP": 1, "SIZE": 0}, "category"),
        (True, ["BILL", "SHIP"], "Size", {"BILL": 0, "SHIP": 0, "SIZE": 1}, "category"),
        (True, ["BILL", "SHIP"], "Hm.", {}, "undecided"),
        (
            False,
            ["BILL, SHIP", "BILL"],
            "1",
            {"BILL": 1, "SHIP": 1, "SIZE": 0},
            "category",
        ),
        (
            False,
            ["BILL, SHIP", "BILL"],
            "not ship",
            {"BILL": 1, "SHIP": 0, "SIZE": 0},
            "no category",
        ),
        (False, ["BILL, SHIP", "BILL"], "SIZE", {"BILL": 1, "SIZE": 0}, "undecided"),
    ],
)
def test_teacher_is_asked_again_about_a_category(
    chat_server: ChatServer,
    write_rows: WriteRows,
    exclusive: bool,
    samples: list[str],
    again: str,
    cats: dict[str, float],
    outcome: str,
) -> None:
    chat_server.behave = _behave(samples, again)
    nlp = _make_classifier(chat_server, exclusive=exclusive)
    rows = write_rows({"id": "x", "text": _TEXT})
    policy = Policy(Rule.SOFT, disputed=Remedy.ASK)
    summary, (doc,) = _annotate(nlp, rows, samples=2, policy=policy)
    assert doc.cats == cats
    assert summary.asked_again == {outcome: 1}
    assert len(chat_server.requests) == 3
    provenance = _get_provenance(doc)
    (told,) = provenance["again"]
    assert told["start"] < 0
    said = {s["label"] for s in provenance["spans"] if "llm/again" in s["votes"]}
    assert said == ({label for *_, label in told["spans"] or []})
    assert all(s["score"] in (0, 1) for s in provenance["spans"]) is (
        outcome != "undecided"
    )


_LETTERS = {
    "BILL": "{} was charged {} times for one order.",
    "SHIP": "The parcel for {} is {} days late.",
    "SIZE": "{} needs it {} inches longer.",
}


@pytest.mark.parametrize("exclusive", [True, False])
def test_suspected_categories_are_asked_about(
    chat_server: ChatServer, write_rows: WriteRows, exclusive: bool
) -> None:
    rights = {
        letter.format(name, n): label
        for name in _NAMES
        for n in (2, 3)
        for label, letter in _LETTERS.items()
    }
    wrong = _LETTERS["SHIP"].format("Gina", 3)

    def answer(body: dict[str, Any]) -> Any:
        content = body["messages"][-1]["content"]
        (right,) = [label for text, label in rights.items() if text in content]
        if not body["messages"][0]["content"].startswith(_AGAIN):
            return complete("SIZE" if wrong in content else right)
        (opinion,) = [
            line
            for line in content.splitlines()
            if line[1:] == f". {right}"
            or (line[1:].startswith(". not ") and right not in line)
        ]
        return complete(opinion[0])

    chat_server.behave = answer
    nlp = _make_classifier(chat_server, exclusive=exclusive)
    rows = write_rows(*({"id": text, "text": text} for text in rights))
    summary, docs = _annotate(nlp, rows, recheck=4)
    for told in summary.rechecked[: 1 if exclusive else 2]:
        assert (told["id"], told["text"]) == (wrong, wrong)
        assert told["before"] != told["after"] == told["predicted"]
    assert summary.rechecked[0]["score"] < 1
    for doc in docs:
        assert doc.cats == {label: label == rights[doc.text] for label in _INTENTS}
    counts = {key: n for key, n in summary.standings.items() if key[1] == "trusted"}
    assert counts == {(label, "trusted"): 32 for label in _INTENTS}
    (doc,) = [doc for doc in docs if doc.text == wrong]
    spans = {s["label"]: s for s in _get_provenance(doc)["spans"]}
    assert (spans["SIZE"]["standing"], spans["SIZE"]["score"]) == ("dropped", 0)
    assert spans["SHIP"]["votes"] == {"llm/again": ""}

import random
import subprocess
import sys
from pathlib import Path

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy_llm.util import assemble
from thinc.api import fix_random_seed

from instaner.errors import InstaNERError
from instaner.swap import swap

TEXTS = ["Ada wrote code in Paris.", "Bob met Ada and left Rome.", "Nobody came."]

PIPELINE = """
[nlp]
lang = "en"
pipeline = {pipeline}

[components]

[components.first]
factory = "sentencizer"

[components.llm]
factory = "llm"

[components.llm.task]
{task}

[components.llm.model]
{model}

[components.last]
factory = "test_count_ents"
"""
TASK = '@llm_tasks = "spacy.NER.v3"\nlabels = ["PERSON", "PLACE"]'
TEXTCAT = '@llm_tasks = "spacy.TextCat.v3"\nlabels = ["PAY", "SHIP"]'
EXCLUSIVE = f"{TEXTCAT}\nexclusive_classes = true"
TASK_JSON = '"@llm_tasks": "spacy.NER.v3", "labels": "PERSON,PLACE"'
LISTENER = {
    "@architectures": "spacy.Tok2VecListener.v1",
    "width": 32,
    "upstream": "*",
}
EMBED = {
    "@architectures": "spacy.HashEmbedCNN.v2",
    "width": 32,
    "depth": 1,
    "embed_size": 200,
    "window_size": 1,
    "maxout_pieces": 2,
    "subword_features": True,
    "pretrained_vectors": None,
}
CHAT = '@llm_models = "instaner.Chat.v1"\nname = "m"'


@Language.component("test_count_ents")
def count_ents(doc: Doc) -> Doc:
    doc.user_data["count"] = len(doc.ents)
    doc.user_data["best"] = max(doc.cats, key=lambda la: doc.cats[la], default=None)
    return doc


@Language.factory("test_at_random")
def make_at_random(nlp: Language, name: str):  # type: ignore[no-untyped-def]
    numbers = random.Random()

    def at_random(doc: Doc) -> Doc:
        doc.user_data["number"] = numbers.random()
        return doc

    return at_random


def _write_pipeline(
    path: Path,
    *,
    names: tuple[str, ...] = ("first", "llm", "last"),
    task: str = TASK,
    model: str = CHAT,
    more: str = "",
) -> str:
    listed = "[" + ", ".join(f'"{name}"' for name in names) + "]"
    config = PIPELINE.format(pipeline=listed, task=task, model=model)
    path.write_text(config + more, "utf8")
    return str(path)


def _train_student(path: Path, *, lang: str = "en", listener: bool = False) -> str:
    fix_random_seed(0)
    nlp = spacy.blank(lang)
    if listener:
        nlp.add_pipe("tok2vec", config={"model": EMBED})
        nlp.add_pipe("ner", config={"model": {"tok2vec": LISTENER}})
    else:
        nlp.add_pipe("ner")
    golds = [(0, 3, "PERSON"), (18, 23, "PLACE")]
    doc = nlp.make_doc(TEXTS[0])
    example = Example.from_dict(doc, {"entities": golds})
    optimizer = nlp.initialize(lambda: [example])
    for _ in range(40):
        nlp.update([example], sgd=optimizer)
    nlp.to_disk(path)
    return str(path)


def _train_categorizer(
    path: Path,
    factory: str = "textcat",
    *,
    labels: tuple[str, ...] = ("PAY", "SHIP"),
    listener: bool = False,
) -> str:
    fix_random_seed(0)
    nlp = spacy.blank("en")
    if listener:
        nlp.add_pipe("tok2vec", config={"model": EMBED})
    model = {
        "@architectures": "spacy.TextCatReduce.v1",
        "exclusive_classes": factory == "textcat",
        "tok2vec": LISTENER if listener else EMBED,
        **{f"use_reduce_{name}": True for name in ("first", "last", "max", "mean")},
    }
    nlp.add_pipe(factory, config={"model": model})
    examples = [
        Example.from_dict(
            nlp.make_doc(text), {"cats": {la: float(la == label) for la in labels}}
        )
        for text, label in zip(TEXTS, labels, strict=False)
    ]
    optimizer = nlp.initialize(lambda: examples)
    for _ in range(20):
        nlp.update(examples, sgd=optimizer)
    nlp.to_disk(path)
    return str(path)


def _find_ents(nlp: Language, text: str) -> list[tuple[str, str]]:
    return [(ent.text, ent.label_) for ent in nlp(text).ents]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> str:
    return _train_student(tmp_path_factory.mktemp("student") / "model")


def test_student_stands_where_llm_stood(student: str, tmp_path: Path) -> None:
    pipeline = _write_pipeline(tmp_path / "p.cfg")
    contract = swap(pipeline, student, tmp_path / "out", texts=TEXTS)
    nlp = spacy.load(tmp_path / "out")
    assert nlp.pipe_names == ["first", "ner", "last"]
    assert contract.pipeline == nlp.pipe_names
    assert contract.compared == ["first", "last"]
    assert contract.same_output == contract.texts == len(TEXTS)
    expected = _find_ents(spacy.load(student), TEXTS[0])
    assert expected
    assert _find_ents(nlp, TEXTS[0]) == expected
    doc = nlp(TEXTS[0])
    assert doc.user_data["count"] == len(expected)
    assert len(list(doc.sents)) == 1


def test_name_can_be_kept(student: str, tmp_path: Path) -> None:
    pipeline = _write_pipeline(tmp_path / "p.cfg")
    swap(pipeline, student, tmp_path / "out", keep_name=True, texts=TEXTS)
    nlp = spacy.load(tmp_path / "out")
    assert nlp.pipe_names == ["first", "llm", "last"]
    assert nlp.get_pipe_meta("llm").factory == "ner"


def test_other_labels_are_reported(student: str, tmp_path: Path) -> None:
    task = '@llm_tasks = "spacy.NER.v3"\nlabels = "PERSON,DISH"'
    pipeline = _write_pipeline(tmp_path / "p.cfg", task=task)
    contract = swap(pipeline, student, tmp_path / "out", texts=TEXTS)
    assert (contract.missing, contract.extra) == (["DISH"], ["PLACE"])


def test_no_key_is_needed_whatever_the_model(
    student: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    model = '@llm_models = "spacy.GPT-4.v3"'
    pipeline = _write_pipeline(tmp_path / "p.cfg", model=model)
    swap(pipeline, student, tmp_path / "out", texts=TEXTS)
    assert spacy.load(tmp_path / "out").pipe_names == ["first", "ner", "last"]


def test_examples_of_the_prompt_may_be_gone(student: str, tmp_path: Path) -> None:
    examples = (
        '\n[components.llm.task.examples]\n@misc = "spacy.FewShotReader.v1"\n'
        'path = "gone.yml"'
    )
    pipeline = _write_pipeline(tmp_path / "p.cfg", task=TASK + examples)
    assert not swap(pipeline, student, tmp_path / "out", texts=TEXTS).missing


def test_saved_pipeline_with_own_tok2vec_keeps_its_results(
    student: str, tmp_path: Path
) -> None:
    base = spacy.blank("en")
    base.add_pipe("tok2vec")
    listener = {
        "@architectures": "spacy.Tok2VecListener.v1",
        "width": 96,
        "upstream": "*",
    }
    base.add_pipe("tagger", config={"model": {"tok2vec": listener}})
    doc = base.make_doc(TEXTS[0])
    example = Example.from_dict(doc, {"tags": ["NN", "VB", "NN", "IN", "NN", "."]})
    base.initialize(lambda: [example])
    ruler = base.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "PLACE", "pattern": "Rome"}])
    base.add_pipe(
        "llm",
        before="entity_ruler",
        config={
            "task": {"@llm_tasks": "spacy.NER.v3", "labels": "PERSON,PLACE"},
            "model": {"@llm_models": "instaner.Chat.v1", "name": "m"},
        },
    )
    base.to_disk(tmp_path / "base")
    with pytest.raises(InstaNERError, match="is what is read"):
        swap(str(tmp_path / "base"), student, tmp_path / "base", texts=TEXTS)
    contract = swap(str(tmp_path / "base"), student, tmp_path / "out", texts=TEXTS)
    nlp = spacy.load(tmp_path / "out")
    assert nlp.pipe_names == ["tok2vec", "tagger", "ner", "entity_ruler"]
    assert contract.compared == ["tok2vec", "tagger", "entity_ruler"]
    tagger = spacy.load(tmp_path / "base", exclude=["llm"])
    for text in TEXTS:
        expected = [token.tag_ for token in tagger(text)]
        assert [token.tag_ for token in nlp(text)] == expected
    assert ("Rome", "PLACE") in _find_ents(nlp, TEXTS[1])


def test_listening_student_gets_its_own_layers(tmp_path: Path) -> None:
    student = _train_student(tmp_path / "student", listener=True)
    pipeline = _write_pipeline(tmp_path / "p.cfg")
    contract = swap(pipeline, student, tmp_path / "out", texts=TEXTS)
    assert contract.same_output == len(TEXTS)
    expected = _find_ents(spacy.load(student), TEXTS[0])
    assert expected
    assert _find_ents(spacy.load(tmp_path / "out"), TEXTS[0]) == expected


def test_disabled_stays_disabled(student: str, tmp_path: Path) -> None:
    path = tmp_path / "p.cfg"
    pipeline = _write_pipeline(path)
    config = path.read_text("utf8").replace(
        'lang = "en"', 'lang = "en"\ndisabled = ["first"]'
    )
    path.write_text(config, "utf8")
    swap(pipeline, student, tmp_path / "out", texts=TEXTS)
    nlp = spacy.load(tmp_path / "out")
    assert nlp.component_names == ["first", "ner", "last"]
    assert nlp.disabled == ["first"]


def test_ents_set_before_are_reported(student: str, tmp_path: Path) -> None:
    pipeline = _write_pipeline(
        tmp_path / "p.cfg",
        names=("ruler", "llm"),
        more='\n[components.ruler]\nfactory = "entity_ruler"\n',
    )
    contract = swap(pipeline, student, tmp_path / "out", texts=TEXTS)
    assert contract.set_before == ["ruler"]


@pytest.mark.parametrize(
    ("task", "factory"), [(EXCLUSIVE, "textcat"), (TEXTCAT, "textcat_multilabel")]
)
def test_student_of_categories_stands_where_llm_stood(
    task: str, factory: str, tmp_path: Path
) -> None:
    listener = factory == "textcat"
    student = _train_categorizer(tmp_path / "student", factory, listener=listener)
    pipeline = _write_pipeline(tmp_path / "p.cfg", task=task)
    contract = swap(pipeline, student, tmp_path / "out", texts=TEXTS)
    assert contract.pipeline == ["first", factory, "last"]
    assert contract.compared == ["first", "last"]
    assert (contract.attr, contract.missing, contract.extra) == ("cats", [], [])
    assert contract.same_output == contract.texts == len(TEXTS)
    assert contract.set_before == []
    nlp, alone = spacy.load(tmp_path / "out"), spacy.load(student)
    for text, best in zip(TEXTS[:2], ("PAY", "SHIP"), strict=True):
        doc = nlp(text)
        assert doc.cats == pytest.approx(alone(text).cats)
        assert doc.user_data["best"] == best


def test_other_categories_are_reported(tmp_path: Path) -> None:
    labels = ("PAY", "SHIP", "SIZE")
    student = _train_categorizer(tmp_path / "student", labels=labels)
    task = EXCLUSIVE.replace("SHIP", "ship")
    pipeline = _write_pipeline(tmp_path / "p.cfg", task=task)
    contract = swap(pipeline, student, tmp_path / "out", texts=TEXTS)
    assert (contract.missing, contract.extra) == (["ship"], ["SHIP", "SIZE"])


def test_categories_set_before_are_reported(tmp_path: Path) -> None:
    other = _train_categorizer(tmp_path / "other", labels=("HERE", "THERE"))
    student = _train_categorizer(tmp_path / "student")
    pipeline = _write_pipeline(
        tmp_path / "p.cfg",
        names=("topic", "llm"),
        task=EXCLUSIVE,
        more=f'\n[components.topic]\nsource = "{other}"\ncomponent = "textcat"\n',
    )
    contract = swap(pipeline, student, tmp_path / "out", texts=TEXTS)
    assert contract.set_before == ["topic"]
    doc = spacy.load(tmp_path / "out")(TEXTS[0])
    assert set(doc.cats) == {"HERE", "THERE", "PAY", "SHIP"}


@pytest.mark.parametrize(
    ("task", "factory", "words"),
    [
        (TEXTCAT, "textcat", "several, .* 0 trained textcat_multilabel"),
        (EXCLUSIVE, "textcat_multilabel", "one category a text, .* 0 trained textcat "),
        (TASK, "textcat", "entities, .* 0 trained ner components"),
    ],
)
def test_student_that_sets_something_else_is_refused(
    task: str, factory: str, words: str, tmp_path: Path
) -> None:
    student = _train_categorizer(tmp_path / "student", factory)
    pipeline = _write_pipeline(tmp_path / "p.cfg", task=task)
    with pytest.raises(InstaNERError, match=f"{words}.*Train a student with one"):
        swap(pipeline, student, tmp_path / "out", texts=TEXTS)
    assert not (tmp_path / "out").exists()


def test_student_of_entities_cannot_set_categories(
    student: str, tmp_path: Path
) -> None:
    pipeline = _write_pipeline(tmp_path / "p.cfg", task=EXCLUSIVE)
    with pytest.raises(InstaNERError, match=r"0 trained textcat components \(ner\)"):
        swap(pipeline, student, tmp_path / "out", texts=TEXTS)


def test_result_needs_neither_spacy_llm_nor_instaner(
    student: str, tmp_path: Path
) -> None:
    pipeline = _write_pipeline(tmp_path / "p.cfg", names=("first", "llm"))
    swap(pipeline, student, tmp_path / "out", texts=TEXTS)
    config = (tmp_path / "out" / "config.cfg").read_text("utf8")
    assert "llm" not in config
    assert "instaner" not in config
    # spaCy itself imports spacy-llm where it is installed, for its factory.
    script = f"""
import sys
import spacy
nlp = spacy.load({str(tmp_path / "out")!r})
print(nlp({TEXTS[0]!r}).ents, "instaner" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "(Ada" in done.stdout
    assert done.stdout.endswith("False\n")


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (("first", "last"), "no llm component"),
        (("llm", "second"), r"2 llm components \(llm, second\)"),
    ],
)
def test_one_llm_component_is_needed(
    names: tuple[str, ...], match: str, student: str, tmp_path: Path
) -> None:
    second = f'\n[components.second]\nfactory = "llm"\n[components.second.task]\n{TASK}'
    pipeline = _write_pipeline(tmp_path / "p.cfg", names=names, more=second)
    with pytest.raises(InstaNERError, match=match):
        swap(pipeline, student, tmp_path / "out", texts=TEXTS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "task",
    [
        '@llm_tasks = "spacy.SpanCat.v3"\nlabels = ["PERSON", "PLACE"]',
        '@llm_tasks = "spacy.Lemma.v1"',
    ],
)
def test_llm_that_sets_something_else_is_refused(
    task: str, student: str, tmp_path: Path
) -> None:
    pipeline = _write_pipeline(tmp_path / "p.cfg", task=task)
    with pytest.raises(InstaNERError, match="does not set entities or categories"):
        swap(pipeline, student, tmp_path / "out", texts=TEXTS)
    assert not (tmp_path / "out").exists()


def test_student_of_another_language_is_refused(tmp_path: Path) -> None:
    student = _train_student(tmp_path / "student", lang="nl")
    pipeline = _write_pipeline(tmp_path / "p.cfg")
    with pytest.raises(InstaNERError, match='"en".*"nl"'):
        swap(pipeline, student, tmp_path / "out", texts=TEXTS)
    assert not (tmp_path / "out").exists()


def test_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    pipeline = _write_pipeline(tmp_path / "p.cfg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InstaNERError, match="is no spaCy pipeline"):
        swap(pipeline, str(tmp_path / "empty"), tmp_path / "out", texts=TEXTS)


def test_student_without_ner_is_refused(tmp_path: Path) -> None:
    pipeline = _write_pipeline(tmp_path / "p.cfg")
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(InstaNERError, match="0 trained ner components"):
        swap(pipeline, str(tmp_path / "blank"), tmp_path / "out", texts=TEXTS)


def test_taken_name_is_refused(student: str, tmp_path: Path) -> None:
    pipeline = _write_pipeline(
        tmp_path / "p.cfg",
        names=("ner", "llm"),
        more=f'\n[components.ner]\nsource = "{student}"\n',
    )
    with pytest.raises(InstaNERError, match="--keep-name"):
        swap(pipeline, student, tmp_path / "out", texts=TEXTS)


def test_another_result_of_another_component_is_refused(
    student: str, tmp_path: Path
) -> None:
    pipeline = _write_pipeline(
        tmp_path / "p.cfg",
        names=("odd", "llm"),
        more='\n[components.odd]\nfactory = "test_at_random"\n',
    )
    with pytest.raises(InstaNERError, match="The component odd gives another result"):
        swap(pipeline, student, tmp_path / "out", texts=TEXTS)
    assert list(tmp_path.glob("*out*")) == []


def test_foreign_folder_is_not_overwritten(student: str, tmp_path: Path) -> None:
    pipeline = _write_pipeline(tmp_path / "p.cfg")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine", "utf8")
    with pytest.raises(InstaNERError, match="is no spaCy pipeline"):
        swap(pipeline, student, tmp_path / "out", texts=TEXTS)
    assert (tmp_path / "out" / "thesis.txt").read_text("utf8") == "mine"


@pytest.mark.parametrize(("task", "component"), [(TASK, "ner"), (EXCLUSIVE, "textcat")])
def test_config_alone_does_the_same(task: str, component: str, tmp_path: Path) -> None:
    folder = tmp_path / "student"
    is_cats = component == "textcat"
    student = _train_categorizer(folder) if is_cats else _train_student(folder)
    pipeline = _write_pipeline(tmp_path / "p.cfg", task=task)
    swap(pipeline, student, tmp_path / "out", keep_name=True, texts=TEXTS)
    source = f'source = "{student}"\ncomponent = "{component}"\n'
    config = (tmp_path / "p.cfg").read_text("utf8")
    start, end = config.index('factory = "llm"'), config.index("[components.last]")
    (tmp_path / "swap.cfg").write_text(config[:start] + source + config[end:], "utf8")
    by_config = assemble(tmp_path / "swap.cfg")
    by_command = spacy.load(tmp_path / "out")
    assert by_config.pipe_names == by_command.pipe_names
    for text in TEXTS:
        assert _find_ents(by_config, text) == _find_ents(by_command, text)
        assert by_config(text).cats == by_command(text).cats

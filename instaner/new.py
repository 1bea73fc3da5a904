"""A project of one's own: this project's files, filled in."""

import io
import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from unicodedata import normalize

import srsly
from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import get_lang_class

from .corpus import read_texts
from .encoders import check_encoder, find_missing, get_encoder
from .errors import InstaNERError
from .files import check_exists, read_jsonl, write_whole
from .gold import read_gold
from .pipeline import make_blank
from .targets import ENTS, choose_categories
from .tasks.categories import NONE
from .tasks.grounding import Status
from .tasks.labels import check_labels
from .tasks.marks import MarkedText, read_marks

# In a wheel the project's files stand in the package, in a checkout beside it.
_HERE = Path(__file__).parent
TEMPLATE = _HERE / "project" if (_HERE / "project").is_dir() else _HERE.parent

_KEPT = ("id", "text", "brief", "split", "votes")  # of texts that are given
_TEXTS_PER_ANSWER = 12  # n of instaner.Generate.v1, if a config sets none
_TRANSFORMER, _CNN = "training/student", "training/student_cnn"
_DEMO = "textcat-"  # commands for other files than those of a new project


@dataclass
class Settings:
    """What a new project is to be.

    labels (Dict[str, str]): Definition of each label, or "".
    task (Literal["ner", "textcat"]): What is annotated: entities, or texts.
    is_several (bool): Texts can have several labels, or none, as always if there is
        one label.
    lang (str): Language code.
    domain (str): What the texts are, in a sentence, or "".
    examples (Optional[Path]): Texts of the wanted kind: a line each with marks, or
        JSONL with text and spans, or cats.
    texts (Optional[Path]): Texts that there are already, to annotate instead of having
        some written: a line each, or JSONL with text.
    gold (Optional[Path]): Gold test set, JSONL or DocBin.
    llm (Optional[str]): Name of the model to ask, or None for the template's.
    base_url (Optional[str]): Address of its server, or None for OPENAI_BASE_URL.
    encoder (Optional[str]): The student's, or None for that of the language.
    is_cnn (bool): Train no transformer, but the CNN student alone.
    n (int): How many texts to have written.
    per_label (int): How many entities, or texts, of each label to ask for at least; 0:
        no matter.
    """

    labels: dict[str, str]
    task: Literal["ner", "textcat"] = "ner"
    is_several: bool = False
    lang: str = "en"
    domain: str = ""
    examples: Path | None = None
    texts: Path | None = None
    gold: Path | None = None
    llm: str | None = None
    base_url: str | None = None
    encoder: str | None = None
    is_cnn: bool = False
    n: int = 1000
    per_label: int = 0

    @property
    def is_exclusive(self) -> bool:
        """Whether a text has one label."""
        return self.task == "textcat" and not self.is_several and len(self.labels) > 1


def make_project(folder: Path, settings: Settings) -> list[str]:
    """Make a project. Everything that is given is checked before anything is written.

    folder (Path): The project's folder, which has to be new, or empty.
    settings (Settings): What it is to be.
    RETURNS (List[str]): What may be wrong, in a line each.
    RAISES (InstaNERError): If the folder holds anything, or what is given is of no use.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InstaNERError(
            f"{folder} exists already, and nothing in it is overwritten. Give a new "
            "folder."
        )
    warnings = check_labels(settings.labels)
    # Models write accents composed.
    labels = {normalize("NFC", name): what for name, what in settings.labels.items()}
    if settings.is_several and settings.task == "ner":
        raise InstaNERError("--several is for texts. Give --task textcat, too.")
    if settings.n < 1 or settings.per_label < 0:
        raise InstaNERError("--n has to be 1 or more, and --per-label 0 or more.")
    for option, value in (
        ("--domain", settings.domain),
        ("--llm", settings.llm),
        ("--base-url", settings.base_url),
    ):
        if value and re.search(r"[\r\n$]", value):  # configs take $ for a variable
            raise InstaNERError(f"{option} has to be one line without $.")
    encoder = check_encoder(settings.encoder or get_encoder(settings.lang).name)
    if re.search(r"[\"'$\\]", encoder):  # it goes into a command
        raise InstaNERError(f"--encoder {encoder} has to be without \" ' $ and \\.")
    missing = [] if settings.is_cnn else find_missing(encoder)
    if missing:
        warnings.append(
            f"The tokenizer of encoder {encoder} needs more packages to train it: pip "
            f"install {' '.join(missing)}."
        )
    settings = replace(settings, labels=labels, encoder=encoder)
    nlp = make_blank(settings.lang)
    path = settings.examples
    examples = list(_read_examples(path, settings, nlp)) if path else []
    if path and not examples:
        raise InstaNERError(f"{path} has no texts. Give a file with some.")
    lines = [_mark(example, settings) for example in examples]
    is_cats = settings.task == "textcat"
    shots = list(_make_cats_shots(settings, nlp) if is_cats else _make_shots(examples))
    if examples and not shots:
        what = "cats, in JSONL" if is_cats else "marks such as [surface](LABEL)"
        warnings.append(
            f"{settings.examples} has no {what}: the examples show the LLM how texts "
            f"read, but not what to {'answer' if is_cats else 'mark'}."
        )
    rows = list(_read_own_texts(settings.texts)) if settings.texts else []
    gold = list(read_gold(settings.gold, nlp)) if settings.gold else []
    if settings.gold:
        _check_gold(settings, gold)
    with write_whole(folder, holds=[]) as part:
        for name in ("assets", "configs", "scripts"):
            (part / name).mkdir(parents=True)
        assets = part / "assets"
        _write_labels(assets / "labels.yml", settings.labels)
        if settings.texts:
            srsly.write_jsonl(assets / "texts.jsonl", rows)
        else:
            _write_plan(assets / "plan.yml", settings)
        if examples:
            path = assets / "generate_examples.txt"
            path.write_text("\n".join(lines) + "\n", "utf8")
        if shots:
            srsly.write_yaml(assets / "examples.yml", shots)
        if gold:
            dumped = (_dump_gold(doc, settings) for doc in gold)
            srsly.write_jsonl(assets / "gold.jsonl", dumped)
        _write_configs(part / "configs", settings, examples=examples, shots=shots)
        for name in ("debug_data.py", "package.py"):
            _copy(f"scripts/{name}", part)
        ignored = "corpus/\ntraining/\nproject.lock\n__pycache__/\n"
        (part / ".gitignore").write_text(ignored, "utf8")
        _write_project(part, folder.resolve().name, settings)
        _write_readme(part)
    return warnings


def _read_examples(
    path: Path, settings: Settings, nlp: Language
) -> Iterator[MarkedText]:
    check_exists(path, "Examples")
    if path.suffix == ".jsonl":
        for doc in read_gold(path, nlp):
            _check_doc(settings, doc, path)
            ents = ENTS.get_marks(doc)
            yield MarkedText(doc.text, ents if settings.task == "ner" else [])
        return
    for number, line in enumerate(_read_lines(path), 1):
        if settings.task == "textcat":
            yield MarkedText(line, [])
            continue
        marked, readings = read_marks(line, settings.labels)
        for reading in readings:
            if reading.status is Status.UNKNOWN_LABEL:
                _check_known(settings, {reading.label}, f"{path}, line {number}")
            if reading.status.is_loss:
                raise InstaNERError(
                    f'{path}, line {number}: "{reading.text[:60]}": '
                    f"{reading.status.value}. Write marks as [surface](LABEL)."
                )
        yield marked


def _read_own_texts(path: Path) -> Iterator[dict[str, Any]]:
    check_exists(path, "Texts")
    if path.suffix == ".jsonl":
        has_texts = sum(1 for _ in read_texts(path)) > 0  # names what is broken
        for _, row in read_jsonl(path):
            # Spans would be a vote, and none the vote that there are no entities.
            yield {key: value for key, value in row.items() if key in _KEPT}
    else:
        lines = _read_lines(path)
        has_texts = bool(lines)
        for number, line in enumerate(lines, 1):
            yield {"id": f"{path.stem}-{number}", "text": line}
    if not has_texts:
        raise InstaNERError(f"{path} has no texts. Give a file with some.")


def _read_lines(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise InstaNERError(f"{path} cannot be read: {err}.") from err
    return [line.strip() for line in lines if line.strip()]


def _check_gold(settings: Settings, gold: list[Doc]) -> None:
    if not gold:
        raise InstaNERError(
            f"{settings.gold} has no texts. Leave out --gold, or give a file with some."
        )
    for doc in gold:
        _check_doc(settings, doc, settings.gold)


def _check_doc(settings: Settings, doc: Doc, where: Any) -> None:
    if settings.task == "ner":
        if doc.cats and not doc.has_annotation("ENT_IOB"):
            raise InstaNERError(
                f"{where} has categories of texts, not entities. Give --task textcat, "
                "or a file with spans."
            )
        _check_known(settings, {ent.label_ for ent in doc.ents}, where)
        return
    if not doc.cats:
        raise InstaNERError(
            f'{where}: "{doc.text[:60]}" has no categories. Give each text its cats.'
        )
    _check_known(settings, set(doc.cats), where)
    found = choose_categories(doc.cats, exclusive=False)
    if settings.is_exclusive and len(found) != 1:
        raise InstaNERError(
            f'{where}: "{doc.text[:60]}" has {" and ".join(found) or "no label"}. Give '
            "--several if texts can have several labels, or none, or mend it there."
        )


def _check_known(settings: Settings, labels: set[str], where: Any) -> None:
    for label in sorted(labels - set(settings.labels)):
        raise InstaNERError(
            f'{where}: label "{label}" is not one of the labels '
            f"({', '.join(settings.labels)}). Add it (--label), or mend it there."
        )


def _dump_gold(doc: Doc, settings: Settings) -> dict[str, Any]:
    if settings.task == "textcat":
        return {"text": doc.text, "cats": doc.cats}
    spans = [
        {"start": ent.start_char, "end": ent.end_char, "label": ent.label_}
        for ent in doc.ents
    ]
    return {"text": doc.text, "spans": spans}


def _mark(example: MarkedText, settings: Settings) -> str:
    if settings.task == "textcat":
        return " ".join(example.text.split())
    text, end = "", 0
    for start, stop, label in example.spans:
        text += f"{example.text[end:start]}[{example.text[start:stop]}]({label})"
        end = stop
    line = " ".join((text + example.text[end:]).split())
    marked, readings = read_marks(line, settings.labels)
    spans = [(" ".join(example.text[i:j].split()), la) for i, j, la in example.spans]
    read = [(marked.text[i:j], label) for i, j, label in marked.spans]
    if read != spans or any(r.status is not Status.EXACT for r in readings):
        raise InstaNERError(
            f'{settings.examples}: "{line[:60]}": what stands in brackets reads as a '
            "mark. Write it without brackets, or leave the text out."
        )
    return line


def _make_shots(examples: list[MarkedText]) -> Iterator[dict[str, Any]]:
    """Make examples for the NER v3 prompt, which wants a reason for each."""
    for text, spans in examples:
        if spans:  # spacy-llm leaves out the others
            yield {
                "text": text,
                "spans": [
                    {
                        "text": text[start:end],
                        "is_entity": True,
                        "label": label,
                        "reason": f"fits the definition of {label}",
                    }
                    for start, end, label in spans
                ],
            }


def _make_cats_shots(settings: Settings, nlp: Language) -> Iterator[dict[str, Any]]:
    """Make examples for the TextCat v3 prompt."""
    path = settings.examples
    for doc in read_gold(path, nlp) if path and path.suffix == ".jsonl" else ():
        yield {"text": doc.text, "answer": _make_answer(doc, settings)}


def _make_answer(doc: Doc, settings: Settings) -> str:
    found = choose_categories(doc.cats, exclusive=settings.is_exclusive)
    if len(settings.labels) == 1:
        return "POS" if found else "NEG"
    return ", ".join(found) or NONE


def _write_labels(path: Path, labels: dict[str, str]) -> None:
    rows = [f"{_quote(label)}: {_quote(text)}\n" for label, text in labels.items()]
    path.write_text("".join(rows), "utf8")


def _write_plan(path: Path, settings: Settings) -> None:
    text = (TEMPLATE / "assets" / "plan.yml").read_text("utf8")
    domain = re.compile(r"^domain: .*$", re.MULTILINE)
    text = domain.sub(lambda _: f"domain: {_quote(settings.domain)}", text, count=1)
    if settings.task == "textcat":  # the rest is for entities
        text = text.partition("\n# Names of each label")[0]
    path.write_text(text, "utf8")


def _write_configs(
    folder: Path,
    settings: Settings,
    *,
    examples: list[MarkedText],
    shots: list[dict[str, Any]],
) -> None:
    name = get_lang_class(settings.lang).__name__
    language = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    if language == "Multi Language":
        language = "multilingual"
    lang = ('lang = "en"', f"lang = {_quote(settings.lang)}")
    llm = [('name = "gpt-4o-mini"', f"name = {_quote(settings.llm or 'gpt-4o-mini')}")]
    server = [*llm, ("base_url = null", f"base_url = {_quote(settings.base_url)}")]
    is_cats = settings.task == "textcat"
    prefix = "textcat_" if is_cats else ""
    several = _SEVERAL if is_cats and not settings.is_exclusive else []
    if not settings.texts:
        with _fill("generator_live.cfg", folder / "generator.cfg") as values:
            values += [lang, *server]
            values += [('language = "English"', f"language = {_quote(language)}")]
            if is_cats:
                values += [("n = 12\n", 'n = 12\ntask = "textcat"\n')]
            if not examples:
                values += [('"assets/generate_examples.txt"', "null")]
    with _fill(f"{prefix}teacher_live.cfg", folder / "teacher.cfg") as values:
        values += [lang, *server, *several]
        if is_cats:
            values += _CATS_SHOTS if shots else _CATS_NO_SHOTS
            if settings.is_several and not settings.texts:
                values += _CATS_WEIGHTS
        else:
            domain = f"The texts: {settings.domain}" if settings.domain else None
            line = f"description = {_quote(domain)}"
            values += [(re.compile("^description = .*$", re.M), line)]
            values += [] if shots else _NO_SHOTS
    labels = f"labels = {_quote(list(settings.labels))}"
    with _fill(f"{prefix}pipeline.cfg", folder / "pipeline.cfg") as values:
        values += [lang, *llm, *several]
        values += [(re.compile(r"^labels = \[.*\]$", re.M), labels)]
    with _fill("swap.cfg", folder / "swap.cfg") as values:
        values += [lang]
        values += _CATS_SWAP if is_cats else []
        if settings.is_cnn:
            values += [(f'"{_TRANSFORMER}/', f'"{_CNN}/')]
        elif is_cats:
            line = 'component = "textcat"'
            values += [(line, f'{line}\nreplace_listeners = ["model.tok2vec"]')]
    with _fill("report.cfg", folder / "report.cfg") as values:
        values += [(re.compile('^annotators = ".*"$', re.M), 'annotators = ""')]
        values += [(re.compile('# The demo.*\npriced_as = ".*"'), _PRICED_AS)]
    students = {"student_cnn.cfg": "textcat_cnn.cfg", "student.cfg": "textcat.cfg"}
    for name in list(students)[: 1 if settings.is_cnn else 2]:
        with _fill(students[name] if is_cats else name, folder / name) as values:
            values += [lang]
            if several:
                factory = 'factory = "textcat_multilabel"'
                values += [('factory = "textcat"', factory), (*several[0], 3)]


@contextmanager
def _fill(name: str, path: Path) -> Iterator[list[tuple[Any, ...]]]:
    """Write a config of the template with other values: give them to the list, each
    with how often it stands there, if not once."""
    values: list[tuple[Any, ...]] = []
    yield values
    text = (TEMPLATE / "configs" / name).read_text("utf8")
    for old, new, *times in values:
        pattern = re.compile(re.escape(old)) if isinstance(old, str) else old
        text, count = pattern.subn(lambda _, new=new: new, text)  # type: ignore[misc]
        wanted = times[0] if times else 1
        if count != wanted:
            raise InstaNERError(
                f"{TEMPLATE / 'configs' / name} has {pattern.pattern} {count} times, "
                f"not {wanted}: the installation is damaged. Install instaner again."
            )
    path.write_text(text, "utf8")


def _copy(name: str, folder: Path) -> None:
    (folder / name).write_bytes((TEMPLATE / name).read_bytes())


def _write_project(folder: Path, name: str, settings: Settings) -> None:
    yaml = srsly.ruamel_yaml.YAML()  # it keeps comments
    yaml.preserve_quotes = True
    yaml.width = 10_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    project = yaml.load((TEMPLATE / "project.yml").read_text("utf8"))
    labels = ", ".join(settings.labels)
    is_cats = settings.task == "textcat"
    about = (settings.domain or "text" + f" with {labels}" * (not is_cats)).rstrip(".")
    description = f"{about}: {labels}" if is_cats else f"{labels} in {about}"
    # Weasel puts it into JSON, then between single quotes, as it is.
    description = re.sub(r'["\\]', "", description).replace("'", "’")
    project["title"] = re.sub(r"[$\\]", "", f"{name}: {labels}")
    project["description"] = (
        f"An LLM teacher {'' if settings.texts else 'writes and '}annotates texts, its "
        "answers vote, and a\nstudent is trained on what the votes agree on, scored "
        "against the teacher, packaged, and\nput where the `llm` component stood.\n"
    )
    student = _CNN if settings.is_cnn else _TRANSFORMER
    values = dict(
        name=re.sub(r"\W+", "_", name.lower(), flags=re.ASCII).strip("_")
        or f"my_{settings.task}",
        description=" ".join(description.split()),
        license="",
        lang=settings.lang,
        generator="configs/generator.cfg",
        teacher="configs/teacher.cfg",
        briefs="corpus/briefs.jsonl",
        n_briefs=max(50, math.ceil(2 * settings.n / _TEXTS_PER_ANSWER)),
        n=settings.n,
        per_label=settings.per_label,
        texts="assets/texts.jsonl" if settings.texts else "corpus/generated.jsonl",
        gold="assets/gold.jsonl" if settings.gold else "",
        dev=0.1,
        student=student,
        encoder=settings.encoder,
    )
    project["vars"].update(values)
    for var in ("textcat_layers", "textcat_steps"):
        project["vars"].pop(var, None)
    if is_cats and settings.texts:  # nobody else votes, and two would tie
        project["vars"]["samples"] = 3
    dropped = {"train"} if settings.is_cnn else set()
    if settings.texts:
        dropped |= {"briefs", "generate"}
    commands = [
        command
        for command in project["commands"]
        if command["name"] not in dropped and not command["name"].startswith(_DEMO)
    ]
    # A page is opened by a person.
    steps = [c["name"] for c in commands if c["name"] != "review"]
    for command in commands:
        if settings.is_cnn:
            _leave_out_transformer(command)
        if "deps" in command:
            command["deps"] = [
                dep
                for dep in command["deps"]
                if dep.startswith(("${vars.", "corpus/", "training/"))
                or (folder / dep).exists()
            ]
    project["commands"] = commands
    project["workflows"] = {"all": steps}
    assets = {**{a["dest"]: a["description"] for a in project["assets"]}, **_ASSETS}
    project["assets"] = [
        {"dest": dest, "description": description}
        for dest, description in assets.items()
        if (folder / dest).exists()
    ]
    dumped = io.StringIO()
    yaml.dump(project, dumped)
    # The blank lines went with what was left out.
    text = re.sub(r"(?<![\n:])\n(?=  - name:|\w+:\n)", "\n\n", dumped.getvalue())
    (folder / "project.yml").write_text(text, "utf8")


# What to fill in, and in its place what.
_NO_SHOTS = [
    (re.compile(r"\[components\.llm\.task\.examples\]\n(?:.+\n)+\n"), ""),
    ('examples = "assets/examples.yml"\n', ""),
]
_CATS_NO_SHOTS = [("assets/textcat/labels.yml", "assets/labels.yml")]
_CATS_SHOTS = [
    (
        'labels = "assets/textcat/labels.yml"\n',
        'labels = "assets/labels.yml"\nexamples = "assets/examples.yml"\n',
    ),
    (
        "[components.llm.model]\n",
        """\
[components.llm.task.examples]
@misc = "spacy.FewShotReader.v1"
path = ${paths.examples}

[components.llm.model]
""",
    ),
    # A reason that is none would be taken for an example of one.
    (
        "label.\nreasoning = true",
        "label. Then each example\n# needs a reason, too.\nreasoning = false",
    ),
]
_SEVERAL = [("exclusive_classes = true", "exclusive_classes = false")]
_CATS_WEIGHTS = [
    (
        'rule = "soft"\n',
        """\
rule = "soft"
# The writer of a text was asked for one label of those that the text may have.
weights = {"generator": 0.1}
""",
    )
]
_CATS_SWAP = [
    ('component = "ner"', 'component = "textcat"'),
    (',"merge_entities"]', "]"),
    (re.compile(r"\n\[components\.merge_entities\]\n.+\n"), ""),
]
_PRICED_AS = """\
# Name of another model to reckon the price with, where the LLM's own has none.
priced_as = \"\""""

_ASSETS = {
    "assets/gold.jsonl": "Gold test set",
    "assets/texts.jsonl": "Texts to annotate",
}


def _leave_out_transformer(command: dict[str, Any]) -> None:
    gone = f"student={_TRANSFORMER}/model-best "
    command["script"] = [line.replace(gone, "") for line in command["script"]]
    paths = (f"{_TRANSFORMER}/model-best", "training/metrics/student.json")
    for key in ("deps", "outputs"):
        if key in command:
            command[key] = [path for path in command[key] if path not in paths]


def _write_readme(folder: Path) -> None:
    from weasel.cli.document import project_document  # slow, and needed here alone

    with redirect_stdout(io.StringIO()):  # it tells where, which is not yet final
        project_document(folder, folder / "README.md")


def _quote(value: Any) -> str:
    """RETURNS (str): A value as JSON, which is what YAML and configs take."""
    return json.dumps(value, ensure_ascii=False)

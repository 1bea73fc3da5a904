from pathlib import Path
from typing import Any, Dict, Iterable, Literal, Tuple

import jinja2.sandbox
from spacy.tokens import Doc

from ..errors import InstaNERError
from .grounding import READINGS, Reading, Status, dump_readings
from .labels import check_labels
from .marks import read_marks, read_texts
from .prompts import get_constant, mark_constant

# Under these keys of doc.user_data stand the brief that a doc asks texts for, and the
# texts that came of it.
BRIEF = "instaner_brief"
TEXTS = "instaner_texts"

# What a brief may hold beside its dimensions, the author, the topic and so on: a label
# that each text is to have; for entities, mentions to use, by label, and, for texts
# that are to have none, words that look like entities.
FOCUS, NAMES, LOOKALIKES = "focus", "names", "lookalikes"
RESERVED = {"id", "split", FOCUS, NAMES, LOOKALIKES}
DOMAIN = "domain"
# How to call dimensions; others say what they are.
_WORDS = {"author": "who writes", "topic": "what about", DOMAIN: "the texts"}

DEFAULT_TEMPLATE = Path(__file__).with_name("generate.jinja").read_text("utf8")


class GenerateTask:
    """A spacy-llm task that asks for texts: each doc stands for a brief."""

    def __init__(
        self,
        labels: dict[str, str],
        *,
        language: str,
        n: int,
        examples: list[str],
        template: str,
        task: Literal["ner", "textcat"] = "ner",
    ) -> None:
        self.labels = labels
        self.language = language
        self.n = n
        self.examples = examples
        self.task = task
        environment = jinja2.sandbox.SandboxedEnvironment(
            undefined=jinja2.StrictUndefined
        )
        self._template = environment.from_string(template)

    def generate_prompts(
        self, docs: Iterable[Doc], context_length: int | None = None
    ) -> Iterable[Tuple[Iterable[Any], Iterable[Doc]]]:
        """Render a prompt for each brief.

        docs (Iterable[Doc]): Docs with a brief (Dict[str, Any]) in user_data[BRIEF].
        context_length (Optional[int]): Not used: a brief is never split.
        YIELDS (Tuple[Iterable[str], Iterable[Doc]]): The prompt and the doc.
        """
        try:
            constant = get_constant(
                self._render(_Any("one")), self._render(_Any("two"))
            )
        except InstaNERError:  # of a template that does not print all of its brief
            constant = ""
        for doc in docs:
            prompt = self._render(doc.user_data[BRIEF])
            yield list(mark_constant([prompt], constant)), [doc]

    def check(self, brief: Dict[str, Any]) -> None:
        """Check a brief before anything is asked about it.

        brief (Dict[str, Any]): The brief.
        RAISES (InstaNERError): If a field is of no use.
        """
        names = brief.get(NAMES, {})
        by_label = names if isinstance(names, dict) else {}
        rules = [
            ("split", isinstance(brief.get("split", ""), str), "train or test"),
            (NAMES, names is by_label, "lists of names by label"),
            (LOOKALIKES, _is_list(brief.get(LOOKALIKES, [])), "a list of words"),
            *(
                (NAMES, _is_list(given), "lists of names")
                for given in by_label.values()
            ),
            *(
                (name, value is not None, "given or left out")
                for name, value in brief.items()
            ),
        ]
        if self.task == "textcat":
            rules += [
                (name, name not in brief, "left out, as it is for entities")
                for name in (NAMES, LOOKALIKES)
            ]
        for name, is_right, what in rules:
            if not is_right:
                raise InstaNERError(
                    f"{name} is {brief.get(name)!r:.60}. It has to be {what}."
                )
        focus = [brief[FOCUS]] if FOCUS in brief else []
        for label in (*focus, *by_label):
            if label not in list(self.labels):
                raise InstaNERError(
                    f'It asks for "{label}", which is not one of the labels '
                    f"({', '.join(self.labels)}). Mend its {FOCUS} or {NAMES}."
                )
        if not brief.keys() - RESERVED:
            raise InstaNERError(
                "It does not say what to write. Give it an author, a topic, a form, or "
                "whatever else sets texts apart."
            )

    def _render(self, brief: Dict[str, Any]) -> str:
        self.check(brief)
        dimensions = {
            _WORDS.get(name, name): value
            for name, value in brief.items()
            if name not in RESERVED
        }
        try:
            return self._template.render(
                language=self.language,
                labels=self.labels,
                dimensions=dimensions,
                brief=brief,
                n=self.n,
                examples=self.examples,
                task=self.task,
            )
        except (jinja2.TemplateError, TypeError, ValueError) as err:
            raise InstaNERError(
                f"The prompt cannot be made ({err}). Give the brief what the template "
                "asks for."
            ) from err

    def parse_responses(
        self, shards: Iterable[Iterable[Doc]], responses: Iterable[Iterable[Any]]
    ) -> Iterable[Doc]:
        """Read the texts of each answer.

        shards (Iterable[Iterable[Doc]]): The docs that stand for the briefs.
        responses (Iterable[Iterable[str]]): One answer for each doc.
        YIELDS (Doc): The docs, with MarkedTexts in user_data[TEXTS] and Readings in
            user_data[READINGS].
        """
        has_marks = self.task == "ner"
        plain = Status.NO_ENTITY if has_marks else Status.EXACT
        for (doc,), (answer,) in zip(shards, responses, strict=False):
            texts, readings = read_texts(answer, self.labels, has_marks=has_marks)
            readings += [Reading(plain, t, "") for t, spans in texts if not spans]
            doc.user_data[TEXTS] = texts
            doc.user_data[READINGS] = dump_readings(readings)
            yield doc


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


class _Any(Dict[str, Any]):
    """A brief that has whatever a template asks for."""

    def __init__(self, value: str) -> None:
        super().__init__(author=value)
        self.value = value

    def __missing__(self, name: str) -> str:
        if name in RESERVED:
            raise KeyError(name)
        return self.value


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf8")
    except (OSError, UnicodeDecodeError) as err:
        raise InstaNERError(f"{path} cannot be read: {err}.") from err


def make_generate_task(
    labels: dict[str, str],
    *,
    language: str = "English",
    n: int = 12,
    examples: Path | None = None,
    template: Path | None = None,
    task: Literal["ner", "textcat"] = "ner",
) -> GenerateTask:
    """Registered as instaner.Generate.v1: a spacy-llm task that has a model write
    texts, with their entities marked or for a category, from briefs.

    labels (Dict[str, str]): Definition of each label.
    language (str): Language of the texts, as its name in English.
    n (int): Number of texts to ask for in one prompt.
    examples (Optional[Path]): File of texts of the wanted kind, one a line, with marks
        of entities.
    template (Optional[Path]): Jinja2 template that gets labels, language, brief, n,
        examples, task and dimensions: what a brief says of the texts, by how to call
        it. None: the one that ships with the package.
    task (Literal["ner", "textcat"]): What the labels are of: entities, which the model
        marks, or texts. Of these it writes those of the category in a brief's focus.
    RETURNS (GenerateTask): The task.
    RAISES (InstaNERError): On no labels or labels that cannot be asked for, a label in
        the examples that is not one of them, or a file that cannot be read.
    """
    check_labels(labels)
    # A config gives strings for paths.
    lines = _read_text(Path(examples)).splitlines() if examples else []
    lines = [line.strip() for line in lines if line.strip()]
    for line in lines if task == "ner" else ():
        for reading in read_marks(line, labels)[1]:
            if reading.status is Status.UNKNOWN_LABEL:
                raise InstaNERError(
                    f'Label "{reading.label}" in {examples} ("{line[:60]}") is not one '
                    f"of the labels ({', '.join(labels)}). Add it to the labels, or "
                    "mend it there."
                )
    try:
        return GenerateTask(
            labels,
            language=language,
            n=n,
            examples=lines,
            template=_read_text(Path(template)) if template else DEFAULT_TEMPLATE,
            task=task,
        )
    except jinja2.TemplateError as err:
        raise InstaNERError(f"{template} is no Jinja2 template: {err}.") from err

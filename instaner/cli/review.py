import getpass
import socket
import sys
from pathlib import Path
from typing import Any

from ..decisions import REVIEWS, check_reviewer, is_store
from ..errors import InstaNERError
from ..files import check_file
from ..pipeline import find_config, get_llms, get_target, load_teacher
from ..targets import Target
from ..tasks.adopting import adopt
from ._util import CODE_HELP, Arg, Opt, import_code, msg, one_line_errors

_INDEX = "review-index.db"


@one_line_errors
def review_cli(
    annotated: Path = Arg("corpus/annotated", help="Folder of annotated shards"),
    teacher: str | None = Opt(
        None, help="Its config: for labels, definitions, examples, and to try it"
    ),
    student: str | None = Opt(
        None, help="Pipeline: texts in which it disagrees come early; and to try it"
    ),
    reviewer: str = Opt("", help="Your name, for your decisions. Empty: the login's"),
    guidelines: Path | None = Opt(None, help="Text file to show beside definitions"),
    examples: Path | None = Opt(
        None, help="File of the teacher's prompt examples, if not as its config says"
    ),
    suspects: int = Opt(
        2000, min=0, help="Texts, drawn by chance, to look for label errors in"
    ),
    overlap: float = Opt(
        0.1, min=0, max=1, help="Share of the texts that every reviewer is shown"
    ),
    host: str = Opt("127.0.0.1", help="Address to listen on; others need the token"),
    port: int = Opt(8010, min=0, max=65535, help="Port; 0: any that is free"),
    code: Path | None = Opt(None, "--code", "-c", help=CODE_HELP),
) -> None:
    """Open a page on which people correct what was annotated. What they decide is kept
    beside the corpus, and counts in `annotate` and `split`."""
    try:
        from ..review.server import LOCAL, listen, make_token, serve
    except ModuleNotFoundError as err:
        if err.name not in ("starlette", "uvicorn"):
            raise
        raise InstaNERError(
            'To review, a web server is needed: pip install "instaner[review]"'
        ) from err
    from ..review.index import find_target, get_fingerprint
    from ..review.review import Settings, prepare

    import_code(code)
    if (
        annotated.is_file()
        and annotated.parent.with_name(f"{annotated.parent.name}.meta.json").exists()
    ):
        raise InstaNERError(
            f"{annotated} is a part of an annotated corpus. Give the whole: "
            f"{annotated.parent}."
        )
    target = find_target(annotated)
    name = reviewer or getpass.getuser()
    check_reviewer(name)
    said = _read_teacher(teacher, target) if teacher is not None else {}
    if guidelines is not None:
        check_file(guidelines, "Guidelines")
    if student is not None:
        find_config(student)
    labels = dict.fromkeys((*target.labels, *said.get("labels", ())))
    target = target._replace(labels=tuple(labels))
    systems = {"teacher": teacher, "student": student}
    settings = Settings(
        annotated,
        target,
        name,
        definitions=said.get("definitions", {}),
        guidelines=guidelines.read_text("utf8") if guidelines else "",
        examples=examples or said.get("examples"),
        systems={name: source for name, source in systems.items() if source},
        overlap=overlap,
        suspects=suspects,
        fingerprint=get_fingerprint(annotated, target, student, suspects),
        code=code,
    )
    index = annotated.with_name(f"{annotated.name}.{_INDEX}")
    listener = listen(host, port)  # before an index is made anew
    review = prepare(settings, index, annotated.with_name(REVIEWS))
    token = "" if host in LOCAL else make_token()
    if token:
        msg.warn(
            f"The page listens on {host}: whoever has its address, with the token, can "
            "read the texts and decide. It is not encrypted."
        )

    address = f"[{host}]" if ":" in host else host
    if host == "0.0.0.0":
        address = socket.gethostname()
    query = f"?token={token}" if token else ""
    msg.good(f"http://{address}:{listener.getsockname()[1]}/{query}")
    msg.text(f"Decisions are kept in {review.decisions.path}. Ctrl+C ends.")
    sys.stdout.flush()
    serve(review, listener, host=host, token=token)


def _read_teacher(source: str, target: Target) -> dict[str, Any]:
    """RETURNS (Dict[str, Any]): labels, definitions, and examples, the file."""
    nlp = load_teacher(source)
    config = nlp.config.interpolate()
    labels: dict[str, None] = {}
    definitions: dict[str, str] = {}
    examples = None
    for name, llm in get_llms(nlp):
        task = adopt(llm.task)
        found = get_target(task, nlp)
        if found is None or found.attr != target.attr:
            continue
        labels.update(dict.fromkeys(getattr(task, "labels", ())))
        definitions.update(getattr(task, "_label_definitions", None) or {})
        section = config["components"][name]["task"].get("examples")
        path = section.get("path") if isinstance(section, dict) else None
        if path is not None and not is_store(Path(path)):
            examples = Path(path)
    return {"labels": labels, "definitions": definitions, "examples": examples}

"""Prove, against a running Label Studio, that offsets survive the way there and back.

A project is made, our export is imported, read back and compared; then an annotation is
made by the API, exported, written by us, imported into a second project, and compared
again. The projects are removed in the end.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import spacy
import typer
from wasabi import msg

from instaner.cli._util import one_line_errors
from instaner.decisions import Answer
from instaner.errors import InstaNERError
from instaner.formats import FORMATS, Losses, Mark, Record, read, write

TEXTS = (
    "I had ramen.",
    "🍜 and 👩‍👩‍👧 had ramen 🍜.",
    "One\r\ntwo\r\nramen\nthree\rfour ramen.",
    "  leading, cafe\u0301 and café, trailing ramen  ",
    "שלום ramen עולם, مرحبا ramen",
    "null \\n <b>ramen</b> & 'ramen'\tramen",
    "A\x85b\u2028c\ufeffd \u200fe ramen",
)
CONFIG = (
    '<View><Labels name="label" toName="text"><Label value="DISH"/><Label value="X"/>'
    '</Labels><Text name="text" value="$text"/></View>'
)
FORMAT = FORMATS["label-studio"]


class Server:
    """A running Label Studio.

    url (str): Where it is.
    token (str): A user's access token.
    """

    def __init__(self, url: str, token: str) -> None:
        headers = {"Authorization": f"Token {token}"}
        self._client = httpx2.Client(base_url=url, headers=headers, timeout=300)

    def ask(self, method: str, path: str, **values: Any) -> Any:
        """RETURNS (Any): What the server answers."""
        try:
            response = self._client.request(method, path, **values)
        except httpx2.HTTPError as err:
            raise InstaNERError(f"Label Studio does not answer ({err!r}).") from err
        if response.status_code >= 400:
            raise InstaNERError(
                f"{method} {path}: {response.status_code} {response.text[:500]}"
            )
        return response.json() if response.content else None

    @contextmanager
    def make_project(self) -> Iterator[int]:
        """YIELDS (int): The id of a project, which is removed afterwards."""
        config = {"title": "instaner proof", "label_config": CONFIG}
        project = self.ask("POST", "/api/projects", json=config)["id"]
        try:
            yield project
        finally:
            self.ask("DELETE", f"/api/projects/{project}")


def make_records() -> list[Record]:
    """RETURNS (List[Record]): Texts with trusted, disputed, nested and other marks."""
    records = []
    for number, text in enumerate(TEXTS):
        start = text.rindex("ramen")
        trusted = Mark(start, start + 5, "DISH", 0.75, ("llm/0", "llm/1"))
        marks = (
            Mark(0, len(text), "X", 0.25, ("llm/1",), True),
            Mark(1, 3, "X", 1.0),
            trusted,
        )
        voted = Record(text, f"t-{number}", marks, meta={"brief": "b"})
        records.append(voted)
        if number % 3 == 0:
            nested = (Mark(0, start + 5, "X"), Mark(start, start + 5, "DISH"))
            records.append(
                voted._replace(marks=nested, answer=Answer.ACCEPT, reviewer="anna")
            )
        if number % 3 == 1:
            records.append(voted._replace(marks=(), answer=Answer.SKIP))
    return records


def send(server: Server, project: int, records: list[Record], path: Path) -> None:
    """Write records, and import the file into a project."""
    losses = Losses()
    write(records, path, FORMAT, losses, spacy.blank("en"))
    for line in losses.describe():
        msg.warn(line)
    tasks = json.loads(path.read_text("utf8"))
    server.ask("POST", f"/api/projects/{project}/import", json=tasks)


def fetch(server: Server, project: int, path: Path) -> list[Record]:
    """RETURNS (List[Record]): What the project exports, as we read it."""
    query = {"exportType": "JSON", "download_all_tasks": "true"}
    tasks = server.ask("GET", f"/api/projects/{project}/export", params=query)
    for task in tasks:  # an export has the ids of predictions alone
        ids = task["predictions"]
        task["predictions"] = [server.ask("GET", f"/api/predictions/{k}") for k in ids]
    tasks.sort(key=lambda task: task["id"])
    path.write_text(json.dumps(tasks), "utf8")
    return [*read(path, FORMAT, Losses())]


def compare(name: str, sent: list[Record], found: list[Record]) -> bool:
    """RETURNS (bool): Whether texts, ids, marks and answers are the same."""
    same = True
    keys = ("text", "id", "marks", "answer", "meta")
    for one, other in zip(sent, found, strict=False):
        for key in keys:
            if getattr(one, key) != getattr(other, key):
                msg.fail(
                    f"{name}, {one.id}: {key}: {getattr(one, key)!r} became "
                    f"{getattr(other, key)!r}"
                )
                same = False
    if len(sent) != len(found):
        msg.fail(f"{name}: {len(sent)} records became {len(found)}")
        return False
    if same:
        count = sum(len(record.marks) for record in sent)
        msg.good(f"{name}: {len(sent)} records, {count} marks are the same")
    return same


@one_line_errors
def main(
    url: str = typer.Option("http://127.0.0.1:8080", envvar="LABEL_STUDIO_URL"),
    token: str = typer.Option(..., envvar="LABEL_STUDIO_TOKEN"),
) -> None:
    """Prove that offsets survive Label Studio."""
    server = Server(url, token)
    records = make_records()
    with (
        tempfile.TemporaryDirectory() as folder,
        server.make_project() as one,
        server.make_project() as other,
    ):
        path = Path(folder) / "tasks.json"
        send(server, one, records, path)
        found = fetch(server, one, path)
        same = compare("There and back", records, found)
        tasks = json.loads(path.read_text("utf8"))
        value = {"start": 1, "end": 3, "labels": ["X"]}
        result = {"from_name": "label", "to_name": "text", "type": "labels"}
        body = {"result": [{"id": "new", **result, "value": value}]}
        for task in tasks:
            server.ask("POST", f"/api/tasks/{task['id']}/annotations/", json=body)
        annotated = fetch(server, one, path)
        new = [r for r in annotated if r.marks == (Mark(1, 3, "X"),) and r.answer]
        if len(new) != len(TEXTS) or not all(record.reviewer for record in new):
            msg.fail(f"{len(new)} of {len(TEXTS)} new annotations came back")
            same = False
        send(server, other, annotated, path)
        again = fetch(server, other, path)
        same = compare("Annotated, and there again", annotated, again) and same
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)

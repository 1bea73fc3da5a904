"""Prompt → answer in one SQLite file: what is stored is never asked again."""

import hashlib
import json
import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Iterator, NamedTuple

from ..database import LARGEST, Database, transact
from ..errors import InstaNERError
from ..files import read_jsonl, write_whole

Messages = list[dict[str, str]]

_EPSILON = 1e-9  # that sums of floats may be wrong by, US dollars

_SCHEMA = (
    "CREATE TABLE systems (id INTEGER PRIMARY KEY, content TEXT UNIQUE)",
    "CREATE TABLE spending (model TEXT PRIMARY KEY, cost REAL NOT NULL)",
    """CREATE TABLE responses (
        id INTEGER PRIMARY KEY,
        key TEXT UNIQUE NOT NULL,
        prompt_sha256 TEXT NOT NULL,
        model TEXT NOT NULL,
        system INTEGER REFERENCES systems,
        user TEXT,
        params TEXT NOT NULL,
        sample INTEGER NOT NULL,
        response TEXT NOT NULL,
        finish_reason TEXT,
        prompt_tokens INTEGER,
        completion_tokens INTEGER,
        cached_tokens INTEGER,
        seconds REAL,
        cost REAL,
        created TEXT
    )""",
)

# Answers that cannot be used; see check_response.
_FAILED = "(finish_reason IN ('length', 'content_filter') OR is_blank(response))"

_RESPONSE = (
    "response, finish_reason, prompt_tokens, completion_tokens, cached_tokens, "
    "seconds, cost, created"
)
# The fields of a recording's lines, and what they may be.
_FIELDS: dict[str, tuple[type, ...]] = {
    "key": (str,),
    "prompt_sha256": (str,),
    "messages": (list,),
    "model": (str,),
    "params": (dict,),
    "sample": (int,),
    "response": (str,),
    "finish_reason": (str,),
    "prompt_tokens": (int,),
    "completion_tokens": (int,),
    "cached_tokens": (int,),
    "seconds": (int, float),
    "cost": (int, float),
    "created": (str,),
}


class Prompt(str):
    """A prompt that says how much of it is the same for every text, and what form the
    answer is to have.

    constant (int): Length of that beginning, in characters. It becomes the system
        message, which providers can cache.
    response_format (Optional[Dict[str, Any]]): Sent with the request, for servers that
        hold an answer to a JSON schema.
    """

    constant: int
    response_format: dict[str, Any] | None

    # Pickle gives the text alone, and sets the rest then.
    def __new__(
        cls,
        text: str,
        *,
        constant: int = 0,
        response_format: dict[str, Any] | None = None,
    ) -> "Prompt":
        prompt = super().__new__(cls, text)
        prompt.constant = constant
        prompt.response_format = response_format
        return prompt


class Request(NamedTuple):
    """What decides an answer.

    model (str): Name of the model, as the server knows it.
    messages (List[Dict[str, str]]): Role and content: system (or none), then user.
    params (Dict[str, Any]): What else the server is told, e.g. temperature.
    sample (int): Which of several answers, from 0.
    """

    model: str
    messages: Messages
    params: dict[str, Any]
    sample: int

    @property
    def key(self) -> str:
        """SHA-256, as hex, of the canonical JSON of all of it."""
        data = json.dumps(
            self._asdict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False
        )
        return _hash(data)

    @property
    def prompt(self) -> str:
        """The prompt that the messages were made from."""
        return "".join(message["content"] for message in self.messages)


@dataclass(frozen=True)
class Response:
    """An answer, and what it took. None: not known.

    text (str): The answer.
    finish_reason (Optional[str]): Why it ended: stop, length, content_filter, ….
    prompt_tokens (Optional[int]): Tokens of the prompt, as the server counts.
    completion_tokens (Optional[int]): Tokens of the answer, as the server counts.
    cached_tokens (Optional[int]): How many of the prompt's came from its cache.
    seconds (Optional[float]): From sending the request to the whole answer.
    cost (Optional[float]): US dollars.
    created (Optional[str]): When it arrived: ISO 8601, UTC.
    """

    text: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    seconds: float | None = None
    cost: float | None = None
    created: str | None = None


class Reason(str, Enum):
    """Why a request has no answer that can be used."""

    FILTERED = "content filter"
    TOO_LONG = "too long for the context"
    CUT = "cut at the token limit"
    EMPTY = "empty answer"
    REFUSED = "refused by the server"
    SERVER = "server error"  # after all retries
    UNREADABLE = "unreadable answer"  # none of its lines could be read


class Failure(NamedTuple):
    """A request without an answer that can be used.

    reason (Reason): Why.
    detail (str): What the server said, or the end of the answer.
    """

    reason: Reason
    detail: str


def check_response(response: Response) -> Response | Failure:
    """RETURNS (Union[Response, Failure]): The answer, if it can be used."""
    if response.finish_reason == "content_filter":
        return Failure(Reason.FILTERED, response.text[-100:])
    if response.finish_reason == "length":
        return Failure(Reason.CUT, response.text[-100:])
    if not response.text.strip():
        return Failure(Reason.EMPTY, "")
    return response


def make_messages(prompt: str, *, system: bool = True) -> Messages:
    """Split a prompt into a system message, which is its constant beginning, and a
    user message.

    prompt (str): The prompt. Only of a Prompt is the beginning known.
    system (bool): False: all of it is the user message.
    RETURNS (List[Dict[str, str]]): The messages. Their contents are the prompt.
    """
    constant = getattr(prompt, "constant", 0) if system else 0
    # Half of a surrogate pair cannot be sent.
    text = prompt.encode("utf8", "replace").decode("utf8")
    parts = text[:constant], text[constant:]
    if not all(part.strip() for part in parts):  # servers take no empty message
        return [{"role": "user", "content": text}]
    roles = ("system", "user")
    return [{"role": r, "content": p} for r, p in zip(roles, parts, strict=True)]


def hash_prompt(prompt: str) -> str:
    """RETURNS (str): SHA-256 of the prompt's UTF-8 bytes, as hex: its name in a
    recording.
    """
    return _hash(prompt)


class Store(Database):
    """Answers in one SQLite file. Several threads and processes can use it at once;
    each answer is committed as it comes.

    path (Path): The file. It is made, with its folders, if it is not there.
    """

    noun = "response store"
    application = 0x494E4552  # "INER"
    schema = _SCHEMA
    lost = "which knows nothing of what was spent"

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.create_function("is_blank", 1, _is_blank, deterministic=True)

    def get(self, key: str) -> Response | None:
        """RETURNS (Optional[Response]): The answer to a request's key, or None.

        RAISES (InstaNERError): If the file cannot be used, as all methods do.
        """
        row = self._find(f"SELECT {_RESPONSE} FROM responses WHERE key = ?", (key,))
        return None if row is None else Response(*row)

    def has_like(self, request: Request) -> bool:
        """RETURNS (bool): Whether the model has ever answered with these params."""
        query = "SELECT 1 FROM responses WHERE model = ? AND params = ? LIMIT 1"
        return self._find(query, (request.model, _dump(request.params))) is not None

    def put(self, request: Request, response: Response, *, reserved: float = 0) -> None:
        """Store an answer, and put its cost in the place of what was reserved for it.

        request (Request): The request. If it has an answer already, that one stays.
        response (Response): The answer.
        reserved (float): US dollars that were reserved for it.
        """
        row = {
            **request._asdict(),
            "key": request.key,
            "prompt_sha256": hash_prompt(request.prompt),
            **asdict(response),
            "response": response.text,
        }
        with self._use() as connection, transact(connection):
            _insert(connection, row)
            _spend(connection, request.model, (response.cost or 0) - reserved)

    def reserve(self, model: str, cost: float, budget: float) -> bool:
        """Set money aside before a request is sent, so that requests in flight, also
        those of other processes and of a killed one, count against the budget.

        model (str): Name of the model.
        cost (float): The most that the request can cost, US dollars.
        budget (float): The most that may be spent on the model, US dollars.
        RETURNS (bool): Whether it fits in the budget. If not, nothing is reserved.
        """
        with self._use() as connection, transact(connection):
            if self.get_spending(model) + cost > budget + _EPSILON:
                return False
            _spend(connection, model, cost)
        return True

    def release(self, model: str, cost: float) -> None:
        """Give back what was reserved for a request that cost nothing."""
        with self._use() as connection, transact(connection):
            _spend(connection, model, -cost)

    def get_spending(self, model: str) -> float:
        """RETURNS (float): US dollars spent on a model and reserved for it so far."""
        row = self._find("SELECT cost FROM spending WHERE model = ?", (model,))
        return 0.0 if row is None else float(row[0])

    def summarise(self) -> list[dict[str, Any]]:
        """Count what is stored.

        RETURNS (List[Dict[str, Any]]): Of each model: prompts (different ones),
            answers, failed (answers that cannot be used), prompt_tokens,
            completion_tokens, cost (US dollars), unpriced (answers whose cost is not
            known), spending (US dollars that count against a budget), first and last
            (when they arrived).
        """
        query = f"""
            SELECT model, count(DISTINCT prompt_sha256) AS prompts,
                count(*) AS answers,
                total(coalesce({_FAILED}, 0)) AS failed,
                total(prompt_tokens) AS prompt_tokens,
                total(completion_tokens) AS completion_tokens,
                total(cost) AS cost, total(cost IS NULL) AS unpriced,
                coalesce((SELECT spending.cost FROM spending
                    WHERE spending.model = responses.model), 0) AS spending,
                min(created) AS first, max(created) AS last
            FROM responses GROUP BY model ORDER BY model
        """
        counts = ("failed", "prompt_tokens", "completion_tokens", "unpriced")
        with self._use() as connection:
            cursor = connection.execute(query)
            names = [column[0] for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor]
        return [{**row, **{name: int(row[name]) for name in counts}} for row in rows]

    def average(self, request: Request) -> dict[str, float] | None:
        """Average what answers to requests of a kind took, to estimate more of them.

        request (Request): One of them: they have its model, params and system message.
        RETURNS (Optional[Dict[str, float]]): answers, completion_tokens and seconds of
            one, and prompt_tokens per UTF-8 byte of the prompt. None without any.
        """
        query = """
            SELECT count(*), avg(completion_tokens), avg(seconds),
                total(prompt_tokens) / total(
                    length(CAST(user AS BLOB)) + coalesce(
                        (SELECT length(CAST(content AS BLOB)) FROM systems
                         WHERE id = system), 0))
            FROM responses
            WHERE model = :model AND params = :params AND user IS NOT NULL
                AND CASE WHEN :system IS NULL THEN system IS NULL
                    ELSE system = (SELECT id FROM systems WHERE content = :system) END
                AND prompt_tokens > 0 AND completion_tokens IS NOT NULL
        """
        *systems, _ = (message["content"] for message in request.messages)
        system = systems[0] if systems else None
        values = {"model": request.model, "params": _dump(request.params)}
        row = self._find(query, {**values, "system": system})
        if row is None or not row[0]:
            return None
        names = ("answers", "completion_tokens", "seconds", "prompt_tokens_per_byte")
        return dict(zip(names, (value or 0.0 for value in row), strict=True))

    def read(self, *, model: str | None = None) -> Iterator[dict[str, Any]]:
        """Read what is stored, as the lines of a recording.

        model (Optional[str]): Only answers of this model.
        YIELDS (Dict[str, Any]): One answer: key, prompt_sha256, messages (unless they
            are not known), model, params, sample, response, and the other fields of a
            Response.
        """
        query = f"""
            SELECT key, prompt_sha256, content, user, model, params, sample, {_RESPONSE}
            FROM responses LEFT JOIN systems ON systems.id = system
            WHERE ? IS NULL OR model = ? ORDER BY created, responses.id
        """
        # Its own connection: others need not wait until all is read.
        with self._explain(), closing(self._open()) as connection:
            cursor = connection.execute(query, (model, model))
            names = [column[0] for column in cursor.description]
            for values in cursor:
                row = dict(zip(names, values, strict=True))
                system, user = row.pop("content"), row.pop("user")
                if user is not None:
                    row["messages"] = [{"role": "user", "content": user}]
                    if system is not None:
                        message = {"role": "system", "content": system}
                        row["messages"].insert(0, message)
                row["params"] = json.loads(row["params"])
                yield {name: row[name] for name in _FIELDS if row.get(name) is not None}

    def export(
        self, output: Path, *, model: str | None = None, prompts: bool = True
    ) -> int:
        """Write what is stored as a recording.

        output (Path): JSONL to write.
        model (Optional[str]): Only answers of this model.
        prompts (bool): Write the prompts too. Without them a recording is smaller, and
            does not show the texts.
        RETURNS (int): Number of answers.
        RAISES (InstaNERError): If the output is the store itself.
        """
        if output.resolve() == self.path.resolve():
            raise InstaNERError(f"{output} is the store itself. Give another output.")
        count = 0
        with write_whole(output) as part, part.open("w", encoding="utf8") as file_:
            for row in self.read(model=model):
                count += 1
                if not prompts:
                    row.pop("messages", None)
                # srsly would round the numbers.
                line = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
                file_.write(f"{line}\n")
        return count

    def add(self, recording: Path) -> int:
        """Take in a recording. Answers that are stored already stay as they are.

        recording (Path): JSONL; see read_recording.
        RETURNS (int): Number of answers that are new.
        RAISES (InstaNERError): On a broken line; then nothing of it is taken in.
        """
        with self._use() as connection, transact(connection):
            new = 0
            for number, row in read_recording(recording):
                where = f"{recording}, line {number}"
                if "model" not in row:
                    raise InstaNERError(f'{where}: "model" has to be a string.')
                row.setdefault("params", {})
                if "messages" in row:
                    fields = (row[name] for name in Request._fields)
                    key = Request(*fields).key
                    if row.setdefault("key", key) != key:
                        raise InstaNERError(
                            f"{where}: the key is not that of its messages, model, "
                            "params and sample. Leave the key out, or mend the line."
                        )
                elif "key" not in row:
                    raise InstaNERError(
                        f"{where}: neither key nor messages, so it cannot be found "
                        "again. Add one of them, or replay the file "
                        "(instaner.Replay.v1)."
                    )
                new += _insert(connection, row)
        return new

    def prune(
        self,
        *,
        model: str | None = None,
        before: str | None = None,
        failed: bool = False,
    ) -> int:
        """Remove answers. What was spent on them stays spent.

        model (Optional[str]): Only answers of this model.
        before (Optional[str]): Only answers that arrived before: ISO 8601, UTC.
        failed (bool): Only answers that cannot be used: cut, filtered or empty.
        RETURNS (int): Number of answers removed.
        """
        query = f"""
            DELETE FROM responses WHERE (:model IS NULL OR model = :model)
                AND (:before IS NULL OR created < :before)
                AND (NOT :failed OR {_FAILED})
        """
        values = {"model": model, "before": before, "failed": failed}
        with self._use() as connection:
            with transact(connection):
                count = connection.execute(query, values).rowcount
                connection.execute(
                    "DELETE FROM systems WHERE id NOT IN "
                    "(SELECT system FROM responses WHERE system IS NOT NULL)"
                )
            connection.execute("VACUUM")
        return count


def read_recording(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read a recording: the JSONL that `instaner responses export` writes. A line needs
    response, and prompt_sha256 or messages; sample is 0 where it is left out.

    path (Path): The file.
    YIELDS (Tuple[int, Dict[str, Any]]): Line number, from 1, and the line's fields;
        prompt_sha256 and sample are always there.
    RAISES (InstaNERError): On a missing file or a broken line.
    """
    for number, line in read_jsonl(path):
        row = {k: v for k, v in line.items() if k in _FIELDS and v is not None}
        for name, value in row.items():
            good = isinstance(value, _FIELDS[name]) and not isinstance(value, bool)
            if isinstance(value, (int, float)):
                good = good and 0 <= value < LARGEST
            if not good:
                kinds = " or ".join(kind.__name__ for kind in _FIELDS[name])
                if int in _FIELDS[name]:
                    kinds += ", from 0 on"
                raise InstaNERError(
                    f'{path}, line {number}: "{name}" has to be of type {kinds}, '
                    f"found {value!r}."
                )
        if "messages" in row:
            try:
                roles = [message["role"] for message in row["messages"]]
                prompt = "".join(message["content"] for message in row["messages"])
                names = [set(message) for message in row["messages"]]
                if roles not in (["user"], ["system", "user"]) or {
                    "role",
                    "content",
                } != set.union(*names):
                    raise ValueError(f"roles {roles}, fields {names}")
            except (KeyError, TypeError, ValueError) as err:
                raise InstaNERError(
                    f'{path}, line {number}: "messages" has to be a user message with '
                    f"role and content, and a system message before it or none ({err})."
                ) from err
            row["prompt_sha256"] = hash_prompt(prompt)
        for name in ("prompt_sha256", "response"):
            if name not in row:
                raise InstaNERError(
                    f'{path}, line {number}: "{name}" has to be a string, found None.'
                )
        yield number, {"sample": 0, **row}


def _is_blank(text: str) -> bool:
    return not text.strip()


def _insert(connection: sqlite3.Connection, row: dict[str, Any]) -> int:
    """RETURNS (int): Number of answers that were new: 1 or 0."""
    contents: list[Any] = [m["content"] for m in row.get("messages", ())]
    *systems, user = contents or [None]
    for content in systems:
        sql = "INSERT OR IGNORE INTO systems (content) VALUES (?)"
        connection.execute(sql, (content,))
    names = [name for name in _FIELDS if name != "messages"]
    values = {**{name: row.get(name) for name in names}, "user": user}
    values["params"] = _dump(row["params"])
    values["system"] = systems[0] if systems else None
    return connection.execute(
        f"INSERT OR IGNORE INTO responses ({', '.join(names)}, user, system) VALUES "
        f"({', '.join(f':{name}' for name in names)}, :user, "
        "(SELECT id FROM systems WHERE content = :system))",
        values,
    ).rowcount


def _spend(connection: sqlite3.Connection, model: str, cost: float) -> None:
    if cost:
        connection.execute(
            "INSERT INTO spending VALUES (:model, :cost) "
            "ON CONFLICT (model) DO UPDATE SET cost = cost + :cost",
            {"model": model, "cost": cost},
        )


def _dump(params: dict[str, Any]) -> str:
    return json.dumps(params, sort_keys=True, ensure_ascii=False)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf8", "replace")).hexdigest()

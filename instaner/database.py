"""A file of SQLite that several threads and processes use at once."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from threading import RLock
from typing import Any, ClassVar

from .errors import InstaNERError

_HEADER = b"SQLite format 3\0"
SUFFIXES = (".db", ".sqlite", ".sqlite3")
LARGEST = 2**53  # of the numbers in it; a float holds each below it
_WAIT = 60.0  # seconds for another process to finish its writing


class Database:
    """A file of SQLite. Each change is committed as it comes. All methods raise an
    InstaNERError if the file cannot be used.

    path (Path): The file. It is made, with its folders, when it is first written to.
    noun (ClassVar[str]): What it is, for messages.
    application (ClassVar[int]): Mark in the file's header.
    version (ClassVar[int]): Version of the schema.
    schema (ClassVar[Tuple[str, ...]]): Statements that make it.
    lost (ClassVar[str]): What a new file lacks, for messages.
    """

    noun: ClassVar[str]
    application: ClassVar[int]
    version: ClassVar[int] = 1
    schema: ClassVar[tuple[str, ...]]
    lost: ClassVar[str]

    def __init__(self, path: Path) -> None:
        self.path = path
        # SQLite forbids a forked process even to close what it inherits.
        self._inherited: list[sqlite3.Connection | None] = []
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._lock = RLock()
        self._connection: sqlite3.Connection | None = None

    @contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        """Opened when it is first used: a pipeline can be loaded without a file."""
        if self._process != os.getpid():
            self._inherited.append(self._connection)
            self._start()
        with self._lock, self._explain():
            if self._connection is None:
                self._connection = self._open()
            yield self._connection

    @contextmanager
    def _explain(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as err:
            if type(err) not in (sqlite3.DatabaseError, sqlite3.OperationalError):
                raise  # a mistake of ours
            is_operational = isinstance(err, sqlite3.OperationalError)
            if is_operational and "decode" not in str(err):
                raise InstaNERError(
                    f"The {self.noun} {self.path} cannot be used ({err}). Check "
                    "the disk's space and the file's permissions; what is stored is "
                    "safe. Then run again."
                ) from err
            if self.path.suffix not in SUFFIXES and not self._is_sqlite():
                raise InstaNERError(
                    f"{self.path} is no {self.noun} ({err}). Give another path."
                ) from err
            raise InstaNERError(
                f"The {self.noun} {self.path} is damaged ({err}). It was set aside "
                f"as {self._set_aside()}. Put a copy in its place, or run again to "
                f"start a new one, {self.lost}."
            ) from err

    def _open(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise InstaNERError(
                f"The {self.noun} {self.path} cannot be made ({err.strerror}). "
                "Check the path."
            ) from err
        connection = sqlite3.connect(
            self.path,
            timeout=_WAIT,
            isolation_level=None,
            check_same_thread=False,
            uri=True,  # what is attached can be one
        )
        try:
            if not self._is_ours(connection):
                with transact(connection):  # unless another process is quicker
                    if not self._is_ours(connection):
                        for statement in self._make_schema():
                            connection.execute(statement)
            # A crash of the process loses nothing so; one of the machine the last
            # answers at most.
            _set_wal(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_schema(self) -> Iterator[str]:
        yield f"PRAGMA application_id = {self.application}"
        yield f"PRAGMA user_version = {self.version}"
        yield from self.schema

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Set up a connection."""

    def _is_ours(self, connection: sqlite3.Connection) -> bool:
        """A database that has tables, and is none of ours, is left as it is."""
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not tables:
            return False
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if (application, version) != (self.application, self.version):
            raise InstaNERError(
                f"{self.path} is a database, but no {self.noun} of this version of "
                "instaner. Give another path."
            )
        return True

    def _is_sqlite(self) -> bool:
        with self.path.open("rb") as file_:
            return file_.read(len(_HEADER)) == _HEADER

    def _set_aside(self) -> Path:
        self.close()
        stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S%f")
        aside = self.path.with_name(f"{self.path.name}.damaged-{stamp}")
        for suffix in ("-wal", "-shm", ""):
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        return aside

    def close(self) -> None:
        """Close the file; it is opened again when it is used."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def __getstate__(self) -> dict[str, Any]:
        # A process of nlp.pipe(n_process=…) opens the file itself.
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def check(self) -> None:
        """RAISES (InstaNERError): If the file cannot be written."""
        with self._use() as connection:
            connection.execute(f"PRAGMA user_version = {self.version}")  # writes

    def _find(self, query: str, values: Any) -> Any:
        if self._connection is None and not self.path.exists():
            return None  # only what is written makes the file
        with self._use() as connection:
            return connection.execute(query, values).fetchone()


def _set_wal(connection: sqlite3.Connection) -> None:
    # For this, SQLite does not wait by itself for another process.
    deadline = time.monotonic() + _WAIT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as err:
            if "locked" not in str(err) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@contextmanager
def transact(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what is done, or roll back all of it."""
    connection.execute("BEGIN IMMEDIATE")
    with connection:  # commits, or rolls back
        yield

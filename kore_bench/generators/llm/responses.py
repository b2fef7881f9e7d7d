"""What language models answered, kept by content in one SQLite file, so that nothing is paid for twice."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ONE = threading.Lock()
_RESPONSES: dict[Path, Responses] = {}
_PATIENCE = 60.0  # seconds that one process waits for another's write
_POLL = 0.05  # seconds between two looks at whether another process has its answer
_TABLE = "CREATE TABLE IF NOT EXISTS responses (key TEXT PRIMARY KEY, response TEXT NOT NULL) WITHOUT ROWID"


def responses(file: Path) -> Responses:
    """Return the one object for a file in this process."""
    with _ONE:
        return _RESPONSES.setdefault(file, Responses(file))


class Responses:
    """The SQLite file, for all threads and processes of this machine; see `responses`.

    An answer is on its way to the disk when `put` returns: a killed process loses none (write-ahead log; a machine that
    loses power may lose the last ones). `alone` lets one thread of one process ask for a key while others wait.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._guard = threading.Lock()
        self._opened: dict[int, tuple[sqlite3.Connection, int]] = {}  # by process: a child must not use its parent's
        self._asked: dict[str, threading.Lock] = {}
        self._waiting: Counter[str] = Counter()

    def get(self, key: str) -> str | None:
        """Return the answer that was kept under ``key``, None where there is none."""
        with self._guard:
            database, _ = self._files()
            row = database.execute("SELECT response FROM responses WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def put(self, key: str, response: str) -> None:
        """Keep an answer under ``key``; one that is kept already stays."""
        with self._guard:
            database, _ = self._files()
            database.execute("INSERT OR IGNORE INTO responses VALUES (?, ?)", (key, response))

    @contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """Wait until nobody else asks for ``key``, and keep others waiting within the block; a kill frees it."""
        with self._guard:
            lock = self._asked.setdefault(key, threading.Lock())
            self._waiting[key] += 1
        try:
            with lock, self._claimed(int(key[:15], 16)):
                yield
        finally:
            with self._guard:
                self._waiting[key] -= 1
                if not self._waiting[key]:
                    del self._waiting[key], self._asked[key]

    @contextmanager
    def _claimed(self, place: int) -> Iterator[None]:
        """Hold one byte of the lock file: a lock on it holds between processes and ends with this one."""
        with self._guard:
            _, file = self._files()
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
                break
            except OSError:  # waiting within lockf would let the kernel see deadlocks between threads where none are
                time.sleep(_POLL)
        try:
            yield
        finally:
            fcntl.lockf(file, fcntl.LOCK_UN, 1, place)

    def _files(self) -> tuple[sqlite3.Connection, int]:
        """Return this process's connection and lock file, which stay open until it ends; call it under the guard."""
        if os.getpid() not in self._opened:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self.file, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(_TABLE)
            self._opened[os.getpid()] = database, os.open(f"{self.file}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        return self._opened[os.getpid()]

"""What judges replied, kept by content in one SQLite file, with their counts and turns: one file for all processes."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

_PATIENCE = 60.0  # seconds that one process waits for another's write
_TABLES = """
CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS counts (use TEXT, event TEXT, number INTEGER NOT NULL, PRIMARY KEY (use, event));
CREATE TABLE IF NOT EXISTS failures (use TEXT PRIMARY KEY, sentence TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS turns (judge TEXT PRIMARY KEY, free REAL NOT NULL);
"""


@dataclass(frozen=True)
class Replies:
    """The SQLite file. Every call opens it anew, so that threads and forked processes can share an object.

    ``use`` names one use of a judge, whose counts and failure all processes that serve it see.
    """

    file: Path

    def get(self, key: str) -> str | None:
        """Return the reply that was kept under ``key``, None where there is none."""
        with self._open() as database:
            row = database.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def put(self, key: str, reply: str) -> None:
        """Keep a reply under ``key``; one that is kept already stays."""
        with self._open() as database:
            database.execute("INSERT OR IGNORE INTO replies VALUES (?, ?)", (key, reply))

    def count(self, use: str, event: str, number: int = 1) -> None:
        """Add ``number`` to what happened in ``use``."""
        with self._open() as database:
            database.execute(
                "INSERT INTO counts VALUES (?, ?, ?) "
                "ON CONFLICT (use, event) DO UPDATE SET number = number + excluded.number",
                (use, event, number),
            )

    def counts(self, use: str) -> dict[str, int]:
        """Return how often each event happened in ``use``."""
        with self._open() as database:
            return dict(database.execute("SELECT event, number FROM counts WHERE use = ?", (use,)).fetchall())

    def fail(self, use: str, sentence: str) -> None:
        """Say why ``use`` cannot go on; the first sentence stays."""
        with self._open() as database:
            database.execute("INSERT OR IGNORE INTO failures VALUES (?, ?)", (use, sentence))

    def failure(self, use: str) -> str:
        """Return why ``use`` cannot go on, nothing where it can."""
        with self._open() as database:
            row = database.execute("SELECT sentence FROM failures WHERE use = ?", (use,)).fetchone()
        return "" if row is None else str(row[0])

    def turn(self, judge: str, interval: float) -> float:
        """Take the next turn of a judge that may be asked every ``interval`` seconds; return the seconds until then."""
        now = time.time()
        with self._open() as database:
            row = database.execute(
                "INSERT INTO turns VALUES (?1, ?2 + ?3) "
                "ON CONFLICT (judge) DO UPDATE SET free = max(free, ?2) + ?3 RETURNING free",
                (judge, now, interval),
            ).fetchone()
        return max(0.0, float(row[0]) - interval - now)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.file, timeout=_PATIENCE, isolation_level=None)) as database:
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'turns'").fetchone():
                database.executescript(_TABLES)
            yield database

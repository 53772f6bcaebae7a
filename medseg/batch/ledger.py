"""The ledger: what is to be done, who does it, what came of it. SQLite, so that several processes may share a folder.

A case is claimed in one UPDATE, so one worker has it. A claim is good as long as its heartbeat is: when that is older
than `STALE` seconds, whoever asks next has the case. Results count once their files have their final names, in the same
transaction that records their checksums; a claim that was lost meanwhile publishes nothing.

Names of files and patients are not in here: the key has them.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from medseg.batch.cases import Named
from medseg.batch.values import Claim, Output, Result
from medseg.errors import MissingError, OutputError

NAME = "ledger.sqlite"
STALE = 8.0  # seconds without a heartbeat after which a worker counts as dead
BEAT = 1.0  # seconds between heartbeats
STATES = ("queued", "running", "done", "failed", "skipped")
_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS cases (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, options TEXT NOT NULL, input TEXT NOT NULL, kind TEXT NOT NULL,
  state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, strikes INTEGER NOT NULL DEFAULT 0,
  worker TEXT NOT NULL DEFAULT '', token TEXT NOT NULL DEFAULT '', beat REAL NOT NULL DEFAULT 0,
  error_class TEXT NOT NULL DEFAULT '', error TEXT NOT NULL DEFAULT '',
  seconds REAL, count INTEGER, facts TEXT NOT NULL DEFAULT '{}', thumb BLOB,
  UNIQUE (name, options, input));
CREATE TABLE IF NOT EXISTS outputs (
  case_id INTEGER NOT NULL REFERENCES cases (id), path TEXT NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL,
  PRIMARY KEY (case_id, path));
CREATE INDEX IF NOT EXISTS by_state ON cases (options, state);
"""
_CLAIM = """
UPDATE cases SET state = 'running', worker = :worker, token = :token, beat = :now, attempts = attempts + 1
WHERE id = (SELECT id FROM cases JOIN mine USING (id)
            WHERE state = 'queued' OR (state = 'running' AND beat < :stale) ORDER BY id LIMIT 1)
RETURNING id, name, input, strikes
"""


class Ledger:
    """The ledger of an output folder; made if it is not there.

    Parameters
    ----------
    folder : Path
        Output folder.
    new : bool
        Whether it may be made.

    Raises
    ------
    MissingError
        There is none, and none may be made.
    OutputError
        It cannot be opened or written.
    """

    def __init__(self, folder: Path, new: bool = True) -> None:
        self.folder = folder
        if not new and not (folder / NAME).is_file():
            raise MissingError(f"{folder}: holds no batch; name the folder that was the --output of one")
        if not new and not os.access(folder, os.W_OK):
            self._open_to_read()
            return
        with self._told():
            self._base = sqlite3.connect(folder / NAME, timeout=60, isolation_level=None)
            self._base.row_factory = sqlite3.Row
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute("PRAGMA synchronous = FULL")
            self._base.execute("CREATE TEMP TABLE mine (id INTEGER PRIMARY KEY)")
        with self.locked():
            for statement in _TABLES.split(";\n"):
                self._base.execute(statement)
            self._base.execute("INSERT OR IGNORE INTO meta VALUES ('secret', ?)", (secrets.token_hex(16),))

    def _open_to_read(self) -> None:
        """Open the ledger of a study that may be looked at alone, as in an archive or that of somebody else."""
        log = self.folder / f"{NAME}-wal"
        # without a log nobody writes; SQLite would want to make one, and may not
        how = "mode=ro" if log.exists() else "mode=ro&immutable=1"
        with self._told():
            self._base = sqlite3.connect(f"{(self.folder / NAME).absolute().as_uri()}?{how}", timeout=60, uri=True)
            self._base.row_factory = sqlite3.Row
            self._base.execute("SELECT count(*) FROM meta")

    def close(self) -> None:
        """Let go of the file."""
        self._base.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            full = "full" in str(error) or "disk I/O" in str(error)
            fault = OutputError(f"{self.folder / NAME}: cannot be used ({error}); check space and permission")
            fault.errno = errno.ENOSPC if full else errno.EIO
            raise fault from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One transaction, during which nobody else writes; undone if it raises."""
        with self._told():
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._base.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._base.execute("ROLLBACK")
                raise

    def get(self, key: str) -> str:
        """Return what was put under a key, "" if nothing was."""
        with self._told():
            row = self._base.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return "" if row is None else str(row["value"])

    def put(self, key: str, value: str) -> None:
        """Remember a value."""
        with self._told():
            self._base.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # ------------------------------------------------------------ what is to be done

    def enroll(self, cases: Sequence[Named], options: str, gone: Sequence[str] = ()) -> int:
        """Queue cases that are not known with these options and this content. Call within `locked`.

        Whatever the same names were with others is skipped: its files stay until the new ones replace them. So are the
        names in `gone`. Returns how many were done with others.
        """
        others = 0
        for one in cases:
            key = (one.name, options, one.digest)
            row = self._base.execute(
                "SELECT count(*) AS n FROM cases WHERE name = ? AND NOT (options = ? AND input = ?) AND state = 'done'",
                key,
            ).fetchone()
            others += row["n"]
            self._base.execute(
                "UPDATE cases SET state = 'skipped', error_class = 'Superseded', error = 'input, model or options have changed' "
                "WHERE name = ? AND NOT (options = ? AND input = ?)",
                key,
            )
            self._base.execute(
                "INSERT INTO cases (name, options, input, kind, state) VALUES (?, ?, ?, ?, 'queued') ON CONFLICT DO UPDATE "
                "SET state = CASE WHEN state <> 'skipped' THEN state WHEN seconds IS NULL THEN 'queued' ELSE 'done' END",
                (*key, one.case.kind),
            )
            self._base.execute(
                "INSERT OR IGNORE INTO mine SELECT id FROM cases WHERE name = ? AND options = ? AND input = ?", key
            )
        for name in gone:
            self._base.execute(
                "UPDATE cases SET state = 'skipped', error_class = 'Superseded', error = 'the input has changed' WHERE name = ?",
                (name,),
            )
        return others

    def requeue(self, broken: Callable[[Sequence[Output]], bool], failed: bool = False) -> tuple[int, int]:
        """Queue what was done here and whose files are gone or changed, and, if asked, what failed; say how many of each."""
        done = self._rows("JOIN mine USING (id) WHERE state = 'done'")
        lost = [
            row["id"] for row in done if broken(self.outputs(row["id"]))
        ]  # which takes its time, so not in a transaction
        with self.locked():
            again = [row["id"] for row in self._rows("JOIN mine USING (id) WHERE state = 'failed'")] if failed else []
            for id in lost:
                self._reset(id, "done")
            for id in again:
                self._reset(id, "failed")
        return len(lost), len(again)

    def _reset(self, id: int, state: str) -> None:
        self._base.execute(
            "UPDATE cases SET state = 'queued', strikes = 0, token = '', error_class = '', error = '' WHERE id = ? AND state = ?",
            (id, state),
        )

    # ------------------------------------------------------------ one case

    def claim(self, worker: str) -> Claim | None:
        """Take a case that is queued, or whose worker is dead; None if there is none."""
        now, token = time.time(), secrets.token_hex(8)
        values = {"worker": worker, "token": token, "now": now, "stale": now - STALE}
        with self._told():
            row = self._base.execute(_CLAIM, values).fetchone()
        return None if row is None else Claim(row["id"], row["name"], row["input"], row["strikes"], token)

    def beat(self, tokens: Iterable[str]) -> None:
        """Say that these claims are alive."""
        with self.locked():
            self._base.executemany(
                "UPDATE cases SET beat = ? WHERE token = ? AND state = 'running'", [(time.time(), t) for t in tokens]
            )

    def publish(self, claim: Claim, result: Result, place: Callable[[], None]) -> bool:
        """Record a result; False, and nothing is placed, if the claim was lost.

        Parameters
        ----------
        claim, result
            The case and what came of it.
        place
            Gives the files their final names. Within the transaction: who lost the claim must not replace files of who has it.
        """
        with self.locked():
            if not self._base.execute(
                "SELECT 1 FROM cases WHERE id = ? AND token = ? AND state = 'running'", (claim.id, claim.token)
            ).fetchone():
                return False
            place()
            kept = {one.path for one in result.outputs}
            others = self._rows("WHERE name = ?", claim.name)
            old = {one.path for row in others for one in self.outputs(row["id"])} - kept
            for row in others:
                self._base.execute("DELETE FROM outputs WHERE case_id = ?", (row["id"],))
            self._base.execute("DELETE FROM cases WHERE name = ? AND id <> ?", (claim.name, claim.id))
            self._base.execute(
                "UPDATE cases SET state = 'done', seconds = ?, count = ?, facts = ?, thumb = ?, error_class = '', error = '', "
                "beat = ? WHERE id = ?",
                (result.seconds, result.count, json.dumps(result.facts), result.thumb, time.time(), claim.id),
            )
            self._base.executemany(
                "INSERT INTO outputs VALUES (?, ?, ?, ?)",
                [(claim.id, one.path, one.sha256, one.size) for one in result.outputs],
            )
        for path in old:  # of other options; whole or not, nothing counts them any more
            with suppress(OSError):
                (self.folder / path).unlink()
        return True

    def fail(self, claim: Claim, error_class: str, error: str, seconds: float, final: bool = True) -> bool:
        """Record why a case failed; if not finally, it is queued again and has one strike more. False if the claim was lost."""
        with self.locked():
            changed = self._base.execute(
                "UPDATE cases SET state = ?, strikes = strikes + 1, error_class = ?, error = ?, seconds = NULL, token = '', "
                "beat = ?, facts = ? WHERE id = ? AND token = ?",
                ("failed" if final else "queued", error_class, error, time.time(),
                 json.dumps({"failed_after": round(seconds, 3)}), claim.id, claim.token),
            ).rowcount  # fmt: skip
        return changed > 0

    def drop(self, claims: Iterable[Claim]) -> None:
        """Queue cases again that were not finished for no fault of theirs."""
        with self.locked():
            self._base.executemany(
                "UPDATE cases SET state = 'queued', token = '' WHERE token = ? AND state = 'running'",
                [(one.token,) for one in claims],
            )

    def release(self, worker: str, error: str) -> None:
        """Queue all that a worker has again, and say why it ends."""
        with self.locked():
            self._base.execute(
                "UPDATE cases SET state = 'queued', token = '', error = ? WHERE worker = ? AND state = 'running'",
                (error, worker),
            )

    # ------------------------------------------------------------ what came of it

    def counts(self, mine: bool = False) -> dict[str, int]:
        """Cases by state: all, or those that this process enrolled."""
        more = "JOIN mine USING (id)" if mine else ""
        with self._told():
            found = dict(self._base.execute(f"SELECT state, COUNT(*) FROM cases {more} GROUP BY state").fetchall())
        return {state: int(found.get(state, 0)) for state in STATES}

    def cases(self, *states: str) -> list[sqlite3.Row]:
        """Rows of cases in some states, or in all, by name."""
        marks = ", ".join("?" * len(states))
        return self._rows(f"WHERE state IN ({marks}) ORDER BY name" if states else "ORDER BY name", *states)

    def outputs(self, id: int) -> list[Output]:
        """Files of a case."""
        with self._told():
            rows = self._base.execute("SELECT path, sha256, size FROM outputs WHERE case_id = ? ORDER BY path", (id,))
            return [Output(*row) for row in rows]

    def reclaim(self, dead: Callable[[str], bool]) -> None:
        """Queue cases again whose worker is known to be dead, without waiting for its heartbeat to grow old."""
        for row in self._rows("JOIN mine USING (id) WHERE state = 'running'"):
            if dead(row["worker"]):
                with self.locked():
                    self._base.execute(
                        "UPDATE cases SET state = 'queued', token = '' WHERE id = ? AND token = ? AND state = 'running'",
                        (row["id"], row["token"]),
                    )

    def alive(self, living: Callable[[str], bool]) -> set[str]:
        """Tokens of claims with a heartbeat, or whose worker is known to be alive: a machine that slept has missed some."""
        oldest = time.time() - STALE
        rows = self._rows("WHERE state = 'running'")
        return {str(row["token"]) for row in rows if row["beat"] >= oldest or living(row["worker"])}

    def _rows(self, more: str, *values: Any) -> list[sqlite3.Row]:
        with self._told():
            return self._base.execute(f"SELECT cases.* FROM cases {more}", values).fetchall()

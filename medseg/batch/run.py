"""The supervisor: hands cases to workers, watches their time and memory, and records what came of each.

A worker that dies with one case has shown which one kills it. With several, all are queued again, and from then on each
worker has one at a time until these are done.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from medseg.batch import placing, workers
from medseg.batch.cases import Case, Named, named
from medseg.batch.crew import Crew, Held, Slot
from medseg.batch.key import write_key
from medseg.batch.ledger import BEAT, Ledger
from medseg.batch.settings import fingerprint, remember
from medseg.batch.steps import DIED, FULL, FULL_TEXT, Failure, Task
from medseg.batch.values import Done, Enrolled, Event, Failed, Known, Noted, Result, Stopped
from medseg.errors import OutputError
from medseg.ops.files import sweep
from medseg.spec import BatchSpec

_POLL = 0.1  # seconds between looks at time and memory; what workers say is heard at once
_RESERVE = 1 << 17  # bytes kept free for the ledger
_REST = 0.5  # seconds between looks for work where others have it all


def run(cases: Sequence[Case], folder: Path, spec: BatchSpec, again: bool = False) -> Generator[Event]:
    """Work through a study. Several processes may do so in one folder at a time.

    Parameters
    ----------
    cases
        As `discover` finds them.
    folder
        Output folder, there already.
    spec
        What is done, and how.
    again
        Whether cases that failed earlier are tried again.

    Yields
    ------
    Known for each input, Enrolled, then Noted, Done and Failed as it goes, Stopped if it has to. Whoever closes the
    generator stops the work; what is half done is queued.

    Raises
    ------
    ModelError, DeviceError
        No case can be done with this model.
    OutputError
        The folder or the ledger cannot be written.
    MissingError, InputError
        The cluster asked for cannot be used.
    """
    options = fingerprint(spec)
    with closing(_crew(spec)) as hands, closing(Ledger(folder)) as ledger:
        known: list[Named] = []
        for one in named(cases, bytes.fromhex(ledger.get("secret"))):
            known.append(one)
            yield Known(len(known), len(cases))
        with ledger.locked():
            other = ledger.enroll(known, options, write_key(folder, known))
        remember(folder, spec)
        if raw := next((one.case.root for one in known if one.case.kind == "bids"), None):
            placing.write_bids_description(folder, raw)
        broken, _ = ledger.requeue(lambda files: placing.broken(folder, files), again)
        yield Enrolled(ledger.counts(mine=True), broken, other)
        supervisor = _Supervisor(ledger, hands, {(one.name, one.digest): one for one in known}, spec)
        try:
            yield from supervisor.events()
        finally:
            with _undisturbed():
                supervisor.close()


def _crew(spec: BatchSpec) -> Crew[Any]:
    """Return who does the cases of a batch.

    Raises
    ------
    MissingError
        The library for clusters is not installed.
    InputError
        No scheduler answers at the address.
    """
    if spec.scheduler == "local":
        from medseg.batch.workers import LocalCrew

        return LocalCrew(spec)
    from medseg.batch.cluster import Cluster

    return Cluster(spec)


class _Supervisor:
    def __init__(self, ledger: Ledger, crew: Crew[Any], cases: dict[tuple[str, str], Named], spec: BatchSpec) -> None:
        self._ledger, self._crew, self._cases, self._spec = ledger, crew, cases, spec
        self._staging = ledger.folder / placing.STAGING
        self._worker = workers.identity()
        self._slots: list[Slot] = []
        self._suspects: set[str] = set()
        self._reserve = ledger.folder / f".reserve.{os.getpid()}-{secrets.token_hex(4)}.part"
        self._beaten = self._looked = self._watched = 0.0
        self._room_made = True  # whether a worker may have room since the ledger was last asked for a case
        self._stop = ""

    def events(self) -> Iterator[Event]:
        """Work until nothing is left, or nothing can be done."""
        sweep(self._ledger.folder)
        try:
            self._reserve.write_bytes(bytes(_RESERVE))  # given up when the disk is full, so that the ledger can say so
            yield from self._work()
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._stop = FULL_TEXT
        if self._stop:
            yield Stopped(self._stop)

    def _work(self) -> Iterator[Event]:
        self._sweep()
        while not self._stop:
            yield from self._hand_out()
            busy = [one for one in self._slots if one.held]
            if not busy:
                left = self._ledger.counts(mine=True)
                if not left["queued"] and not left["running"]:
                    break
            for slot in self._crew.wait(self._slots, _POLL if busy else _REST):
                yield from self._hear(slot)
            yield from map(Noted, self._crew.news())
            yield from self._watch()
            self._stop = self._stop or self._crew.gone()
        if self._stop:
            return
        for one in self._slots:
            one.dismiss()
        self._slots.clear()

    def close(self) -> None:
        """End what runs, and queue what it had."""
        held = [one for slot in self._slots for one in slot.held.values()]
        for slot in self._slots:
            slot.kill()
        self._slots.clear()
        with suppress(OSError):
            self._reserve.unlink()
        for one in held:
            shutil.rmtree(one.task.folder, ignore_errors=True)
        with suppress(OutputError):
            self._ledger.release(self._worker, self._stop)  # also a case that was being handed out or published
            self._sweep()
        with suppress(OSError):
            self._staging.rmdir()

    # ------------------------------------------------------------ handing out

    def _hand_out(self) -> Iterator[Event]:
        """Give every worker that has room a case, and start workers as long as there are cases for them."""
        if time.monotonic() - self._looked > _REST:
            self._ledger.reclaim(lambda worker: worker != self._worker and workers.dead(worker))
            self._looked, self._room_made = time.monotonic(), True
        if not self._room_made:  # workers say much, and the ledger is a file: it is asked when there is a reason
            return
        self._room_made = False
        while self._room() and (claim := self._ledger.claim(self._worker)) is not None:
            one = self._cases[claim.name, claim.input]
            if fault := one.case.fault or one.unread:
                self._ledger.fail(claim, "InputError", fault, 0.0)
                yield Failed(claim.name, fault, True)
                continue
            slot = self._emptiest()
            folder = self._staging / claim.token
            placing.make(folder)
            slot.hand(Held(claim, one, Task(claim.token, one.name, one.case, one.hashes, folder, one.case.place)))

    def _room(self) -> bool:
        return len(self._slots) < self._crew.size() or any(len(one.held) < self._ahead() for one in self._slots)

    def _ahead(self) -> int:
        if self._suspects:
            return 1
        # towards the end nobody hoards cases that another worker, here or elsewhere, could begin with
        left = self._ledger.counts(mine=True)["queued"] + sum(len(one.held) for one in self._slots)
        return max(1, min(self._crew.ahead, left // max(1, self._crew.size())))

    def _emptiest(self) -> Slot:
        """A worker for the next case; a new one if all are busy and more may be started."""
        free = sorted(self._slots, key=lambda one: len(one.held))
        if (not free or free[0].held) and len(self._slots) < self._crew.size():
            self._slots.append(self._crew.slot())
            return self._slots[-1]
        return free[0]

    # ------------------------------------------------------------ hearing

    def _hear(self, slot: Slot) -> Iterator[Event]:
        try:
            what, token, more = slot.hear()
        except (EOFError, OSError):
            yield from self._died(slot, DIED.error_class, DIED.error)
            return
        if what == "broken":
            raise more
        held = slot.held.get(token)
        if held is None:
            return
        if what in ("begin", "end"):
            held.heard(what)
            return
        self._room_made = True
        if what == "lost":  # before anybody began with it
            del slot.held[token]
            self._ledger.drop([held.claim])
            shutil.rmtree(held.task.folder, ignore_errors=True)
        elif what == "done":
            del slot.held[token]
            yield from self._publish(held, more)
        else:
            del slot.held[token]
            if held.task.folder.is_dir():
                yield from self._failed(held, more)
                shutil.rmtree(held.task.folder, ignore_errors=True)
            else:  # somebody took it for a dead worker's; that is no fault of the case
                self._ledger.drop([held.claim])

    def _publish(self, held: Held, result: Result) -> Iterator[Event]:
        folder, claim, placed = held.task.folder, held.claim, False

        def place() -> None:
            nonlocal placed
            placing.place(folder, self._ledger.folder, result.outputs)
            placed = True

        try:
            mine = self._ledger.publish(claim, result, place)
        except OutputError as error:
            if placed:  # and the ledger has no room to say so
                placing.take_back(self._ledger.folder, result.outputs)
            full = error.errno in FULL
            if not full and not folder.is_dir():  # taken for a dead worker's, as above
                self._ledger.drop([claim])
                return
            yield from self._failed(held, Failure("OutputError", FULL_TEXT if full else str(error), full))
            return
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._suspects.discard(claim.name)
        if mine:
            yield Done(claim.name, result.count, result.seconds)

    def _failed(self, held: Held, why: Failure) -> Iterator[Event]:
        claim = held.claim
        if why.full:
            self._stop = why.error
            return  # the claim is released with all others
        final = not (why.again and claim.strikes + 1 < self._spec.tries)
        if final:
            self._suspects.discard(claim.name)
        if self._ledger.fail(claim, why.error_class, why.error, held.seconds(), final):
            yield Failed(claim.name, why.error, final)

    # ------------------------------------------------------------ watching

    def _watch(self) -> Iterator[Event]:
        """Keep claims alive, and end workers that take too long or too much."""
        now = time.monotonic()
        if now - self._watched < _POLL:
            return
        self._watched = now
        if now - self._beaten > BEAT:
            self._ledger.beat([token for slot in self._slots for token in slot.held])
            self._beaten = now
        for slot in list(self._slots):
            late = next((one for one in slot.held.values() if one.seconds() > self._spec.seconds), None)
            if late is not None:
                text = f"took longer than {self._spec.seconds:g} s; raise --seconds, or leave it out"
                yield from self._died(slot, "TimeLimit", text, late)
            elif slot.held and slot.gibibytes() > self._spec.memory:
                text = f"took more than {self._spec.memory:g} GiB of memory; raise --memory, or leave it out"
                yield from self._died(slot, "MemoryLimit", text)

    def _died(self, slot: Slot, error_class: str, error: str, culprit: Held | None = None) -> Iterator[Event]:
        """Record what a worker's end means for the cases it had, and let another take its place."""
        slot.kill(stuck=culprit is not None)
        self._slots.remove(slot)
        self._room_made = True
        held = list(slot.held.values())
        if culprit is None and len(held) == 1:
            culprit = held[0]
        rest = [one for one in held if one is not culprit]
        self._ledger.drop([one.claim for one in rest])
        if culprit is None:
            self._suspects |= {one.claim.name for one in rest}
        for one in held:
            shutil.rmtree(one.task.folder, ignore_errors=True)
        if culprit is not None:
            yield from self._failed(culprit, Failure(error_class, error, again=error_class == "WorkerDied"))

    def _sweep(self) -> None:
        """Remove what dead workers have half written."""
        with suppress(OSError):
            found = list(self._staging.iterdir())
            alive = self._ledger.alive(workers.living)
            for folder in found:
                if folder.name not in alive:
                    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Leave no claim behind because somebody pressed Ctrl-C twice."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

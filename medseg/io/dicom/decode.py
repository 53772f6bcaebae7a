"""Compressed DICOM pixels are decoded in a process of their own, so that a damaged file can neither kill nor hang ours.

The decoders are C and Rust libraries that read what strangers wrote. A worker is a plain interpreter that imports neither
torch nor the caller's script, is started when the first compressed frame is wanted, kept for the next, limited in
memory, and killed when a frame takes too long.
"""

from __future__ import annotations

import atexit
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from medseg.errors import FormatError
from medseg.io.dicom import codestreams
from medseg.io.dicom.codestreams import Refused

AnyArray = npt.NDArray[Any]

SECONDS = 20.0  # longest time for one frame
_EXTRA = 512 << 20  # bytes a worker may take beside the frame itself
_START = "import sys; sys.path[:] = {path!r}; from medseg.io.dicom.decode import serve; serve()"
_FAILED = "The frame is damaged, missing, or compressed in a way that is not supported."


def frames(path: Path, numbers: Sequence[int], frame_bytes: int, workers: int = 1) -> Iterator[AnyArray]:
    """Decode frames of one file in a worker process.

    Parameters
    ----------
    path : Path
        A DICOM file.
    numbers : sequence of int
        Which frames, from 0.
    frame_bytes : int
        Bytes of one decoded frame, which the worker's memory limit is made from.
    workers : int
        How many workers may be alive.

    Yields
    ------
    array (rows, columns) or (rows, columns, 3)
        Stored values of gray frames; red, green, blue of colour ones.

    Raises
    ------
    Refused
        A frame is not whole or contradicts its header.
    FormatError
        A frame cannot be decoded, takes too long or too much memory, or kills the worker.
    """
    worker, done = _borrow(workers), False
    try:
        for pixels in worker.decode(path, numbers, frame_bytes):
            if pixels is None or isinstance(pixels, str):
                done = True  # it has said so and waits for the next request
                raise Refused(pixels) if pixels else FormatError(_FAILED)
            yield pixels
        done = True
    finally:
        if not done:  # dead, late, or the caller stopped early and what is still to come would be the next answer
            worker.close()
        _give_back(worker)


def frame(dataset: Any, number: int) -> AnyArray:
    """Decode one frame of a pydicom data set in this process: gray as stored, colour as red, green, blue.

    Returns
    -------
    array (rows, columns) or (rows, columns, 3)

    Raises
    ------
    Refused
        It is not whole or contradicts the header. Decoders raise anything else.
    """
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    photometric = str(dataset.get("PhotometricInterpretation", ""))
    gray = int(dataset.get("SamplesPerPixel", 1)) == 1
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", ""))
    data, stream = b"", None
    if syntax in codestreams.KNOWN:
        data = codestreams.frame_data(dataset, number)
        stream = codestreams.parsed(data, syntax)
        codestreams.check_colours(stream, photometric, syntax)
        if syntax not in codestreams.JPEG_LS:
            # These decoders return pixel by pixel whatever the header says; pydicom 3.0 believes the header.
            dataset.PlanarConfiguration = 0
    if stream and syntax in codestreams.JPEG:
        signed = int(dataset.get("PixelRepresentation", 0)) == 1
        pixels = codestreams.jpeg_pixels(data, stream, photometric, signed)
    else:
        pixels = pixel_array(dataset, index=number, raw=gray)
    if stream and gray:
        codestreams.check_bits(pixels, stream, dataset)
    return apply_color_lut(pixels, dataset) if photometric == "PALETTE COLOR" else pixels


class _Worker:
    """One process; answers one request at a time."""

    def __init__(self) -> None:
        one = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **one},
        )

    @property
    def alive(self) -> bool:
        return self._process.stdin is not None and not self._process.stdin.closed and self._process.poll() is None

    def decode(self, path: Path, numbers: Sequence[int], frame_bytes: int) -> Iterator[AnyArray | str | None]:
        """Send a request and take the answers, one for each frame; None or why, and no more, if one cannot be decoded."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise FormatError(_FAILED)
        with self._limited(), suppress(OSError):
            pickle.dump((os.path.abspath(path), list(numbers), frame_bytes), stdin)
            stdin.flush()
        for _ in numbers:
            with self._limited():
                answer = _received(stdout)
            yield answer
            if answer is None or isinstance(answer, str):
                return

    def _limited(self) -> _Limit:
        return _Limit(self._process)

    def close(self) -> None:
        """End the process; killing is safe, since it holds nothing."""
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        self._process.wait()


class _Limit:
    """Kill a process unless the block ends in time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._timer = threading.Timer(SECONDS, process.kill)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


def _received(stream: IO[bytes]) -> AnyArray | str | None:
    """The next answer of a worker: pixels, or why it did not decode them, None if only a library could tell.

    Raises
    ------
    FormatError
        The worker is gone.
    """
    try:
        answer = pickle.load(stream)
        if answer is None or isinstance(answer, str):
            return answer
        out = np.empty(*answer)
    except (EOFError, pickle.UnpicklingError, OSError, ValueError, TypeError, MemoryError):
        raise FormatError(_FAILED) from None
    view = memoryview(out.data).cast("B")
    while len(view):
        count = stream.readinto(view)  # type: ignore[attr-defined]  # a BufferedReader has it
        if not count:
            raise FormatError(_FAILED)
        view = view[count:]
    return out


_idle: list[_Worker] = []
_lent = 0
_changed = threading.Condition()


def _borrow(limit: int) -> _Worker:
    """Take an idle worker, start one if fewer than `limit` are at work, or wait."""
    global _lent
    with _changed:
        while True:
            while _idle:
                worker = _idle.pop()
                if worker.alive:
                    _lent += 1
                    return worker
                worker.close()
            if _lent < max(1, limit):
                _lent += 1
                break
            _changed.wait()
    try:
        return _Worker()
    except OSError:
        with _changed:
            _lent -= 1
            _changed.notify()
        raise FormatError("No process to decode compressed pixels could be started.") from None


def _give_back(worker: _Worker) -> None:
    global _lent
    with _changed:
        if worker.alive:
            _idle.append(worker)
        _lent -= 1
        _changed.notify()


def _forget() -> None:
    """After a fork the pipes belong to the parent."""
    global _lent, _changed
    _kept.extend(_idle)
    _idle.clear()
    _lent, _changed = 0, threading.Condition()


_kept: list[_Worker] = []  # of a parent process: never used, never closed


@atexit.register
def _close() -> None:
    while _idle:
        _idle.pop().close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def serve() -> None:
    """Answer requests on standard input until it ends: the worker's whole life."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever a library prints must not get between the answers
    import logging
    import warnings

    from medseg.io.dicom.bounded import whole

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    while True:
        try:
            path, numbers, frame_bytes = pickle.load(sys.stdin.buffer)
        except (EOFError, KeyboardInterrupt):
            return
        _limit_memory(6 * frame_bytes + 2 * os.path.getsize(path) + _EXTRA)
        dataset = None
        for number in numbers:
            try:
                dataset = whole(path) if dataset is None else dataset
                pixels = np.ascontiguousarray(frame(dataset, number))
            except BaseException as error:  # also Rust's PanicException; what libraries say may quote the header
                pickle.dump(str(error) if isinstance(error, Refused) else None, out)
                out.flush()
                break
            pickle.dump((pixels.shape, pixels.dtype.str), out)
            out.write(memoryview(pixels.data).cast("B"))
            out.flush()


def _limit_memory(size: int) -> None:
    """Let this process take at most `size` bytes more than it has, where the system knows how."""
    try:
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + size, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (ImportError, OSError, ValueError, AttributeError):
        return

"""The network side of a listener: C-STORE and C-ECHO in, C-STORE out. What is received goes into a `Spool`.

pynetdicom collects an object in memory before anybody sees it, so that the bytes that may come are limited where they are
read from the socket. Nothing of a request is logged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.batch.spool import NO_ROOM, NOT_READ, SUCCESS, Spool
from medseg.errors import MissingError, OutputError, SpecError

_ROOT = "1.2.840.10008.5.1.4.1.1."
# CT, enhanced CT, converted CT; MR, enhanced MR, enhanced colour MR, converted MR; PET, enhanced PET, converted PET
KINDS = tuple(f"{_ROOT}{end}" for end in ("2", "2.1", "2.2", "4", "4.1", "4.3", "4.4", "128", "130", "128.1"))
_SEG, _LABELMAP, _RTSTRUCT = f"{_ROOT}66.4", f"{_ROOT}66.7", f"{_ROOT}481.3"
_REPORTS = tuple(f"{_ROOT}88.{end}" for end in ("11", "22", "33", "34"))
SENT = (_SEG, _LABELMAP, _RTSTRUCT, *_REPORTS)
# no deflate: a small object could grow without bound when it is read
_PLAIN = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
_PACKED = tuple(f"1.2.840.10008.1.2.{end}" for end in ("4.50", "4.51", "4.57", "4.70", "4.80", "4.81", "4.90", "4.91"))
_RLE = "1.2.840.10008.1.2.5"
_ECHO = "1.2.840.10008.1.1"
_AT_ONCE = 4  # associations; each may hold an object in memory
_SLACK = 1 << 20  # bytes of protocol beside an object
_PATIENCE = 30.0  # seconds for an answer


@dataclass(frozen=True)
class Peer:
    """Who results are sent to."""

    aet: str
    host: str
    port: int


def peer(text: str) -> Peer:
    """Read AET@HOST:PORT.

    Raises
    ------
    SpecError
        It is something else.

    Examples
    --------
    >>> peer("PACS@10.0.0.5:104")
    Peer(aet='PACS', host='10.0.0.5', port=104)
    """
    found = re.fullmatch(r"([^@]+)@([^@\s/]+):(\d{1,5})", text)
    if found is None or not 0 < int(found[3]) < 1 << 16:
        raise SpecError("--send-to is no AET@HOST:PORT such as PACS@10.0.0.5:104")
    return Peer(title(found[1], "--send-to"), found[2], int(found[3]))


def title(text: str, option: str) -> str:
    """Return an application entity title.

    Raises
    ------
    SpecError
        It is none.
    """
    if not re.fullmatch(r"[ -\[\]-~]{1,16}", text) or not text.strip():
        raise SpecError(f"{option}: a title of an application entity has 1 to 16 characters of ASCII and no backslash")
    return text


class Listener:
    """A Storage SCP that puts what it is sent into a spool, and answers C-ECHO.

    Parameters
    ----------
    spool : Spool
        Where objects go.
    aet : str
        Its title.
    host, port
        Where it listens; port 0 takes any that is free.

    Raises
    ------
    MissingError
        pynetdicom is not installed.
    OutputError
        The port is taken or may not be used.
    """

    def __init__(self, spool: Spool, aet: str, host: str, port: int) -> None:
        ae = _entity(aet)
        from pynetdicom import evt

        for kind in KINDS:
            ae.add_supported_context(kind, [*_PLAIN, *_PACKED, _RLE])
        ae.add_supported_context(_ECHO)
        ae.maximum_associations = _AT_ONCE
        self._spool, self._entity = spool, ae
        self._news: list[str] = []
        events: Any = [
            (evt.EVT_CONN_OPEN, self._opened),
            (evt.EVT_C_STORE, self._stored),
            (evt.EVT_RELEASED, self._released),
            (evt.EVT_CONN_CLOSE, self._closed),
        ]
        try:
            server: Any = ae.start_server((host, port), block=False, evt_handlers=events)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or "no such port"
            raise OutputError(f"port {port} of {host} cannot be listened on ({why}); choose another --port") from None
        self.port: int = server.server_address[1]

    def close(self) -> None:
        """End all associations and stop listening."""
        with suppress(OSError):
            self._entity.shutdown()  # who still sends is cut off, or its thread would keep the program alive

    def news(self) -> list[str]:
        """Return what happened that a person should know, once."""
        news, self._news = self._news, []
        return news

    def _opened(self, event: Any) -> None:
        """Count what is read of an object, and hang up on who sends more than one may have."""
        line = event.assoc.dul.socket
        read, most = line.recv, self._spool.largest + _SLACK
        event.assoc.medseg_read = 0

        def counted(count: int) -> Any:
            event.assoc.medseg_read += count
            if event.assoc.medseg_read > most:
                raise OSError("more than one object may have")
            return read(count)

        line.recv = counted

    def _stored(self, event: Any) -> int:
        event.assoc.medseg_read = 0
        try:
            data = event.encoded_dataset()
            kind, instance = str(event.request.AffectedSOPClassUID), str(event.request.AffectedSOPInstanceUID)
            if kind != str(event.context.abstract_syntax):
                return NOT_READ
            return self._spool.take(data, kind, instance, id(event.assoc))
        except MemoryError:
            return NO_ROOM
        except Exception:  # whatever it is, the next object must be heard
            return NOT_READ

    def _released(self, event: Any) -> None:
        self._spool.ended(id(event.assoc), True)

    def _closed(self, event: Any) -> None:
        if self._spool.ended(id(event.assoc), False):  # nothing is left to end where it was released before
            self._news.append("a sender broke off; what came waits until the series is sent again")


def send(files: Iterable[Path], to: Peer, aet: str) -> str:
    """Send objects by C-STORE; returns why it did not work, "" if it did.

    Parameters
    ----------
    files
        SEG, RTSTRUCT or SR.
    to, aet
        Who gets them, and our own title.
    """
    from pydicom import dcmread

    ae = _entity(aet)
    for kind in SENT:
        ae.add_requested_context(kind, list(_PLAIN))
        ae.add_requested_context(kind, _RLE)  # of its own, or who takes both might choose the other one
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = _PATIENCE
    association = ae.associate(to.host, to.port, ae_title=to.aet)
    if not association.is_established:
        return "no association; check AET, host and port, and that it accepts SEG and SR"
    try:
        for file in files:
            status = association.send_c_store(dcmread(file))
            code = getattr(status, "Status", None)
            if code is None:
                return "no answer"
            if code != SUCCESS and code & 0xF000 != 0xB000:  # warnings mean that it is stored
                return f"refused with status {code:04X}"
    except (ValueError, RuntimeError, AttributeError, OSError) as error:
        return f"not sent ({type(error).__name__}); check that it accepts SEG and SR"
    finally:
        association.release()
    return ""


def _entity(aet: str) -> Any:
    """Return an application entity."""
    try:
        from pynetdicom import AE
    except ImportError:
        raise MissingError('a listener needs pynetdicom; install it with: pip install "medseg[pacs]"') from None
    return AE(ae_title=aet)

"""Whole files or none: every result is written under a temporary name, flushed to disk, then renamed."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from medseg.errors import OutputError


def write_whole(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically: a reader finds the old file or the new one, never half of one.

    Raises
    ------
    OutputError
        No space, no permission, or the folder is not there.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); check space and permission"
        ) from None
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

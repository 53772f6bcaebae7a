"""Words for a person, shown where napari shows them; never a traceback."""

from __future__ import annotations

import logging

_log = logging.getLogger("medseg_napari")


def words(error: BaseException) -> str:
    """What a person should read of an error."""
    from medseg.errors import MedsegError

    if isinstance(error, MedsegError):
        return str(error)
    if isinstance(error, MemoryError):
        return "There is not enough memory for this; close other images, or choose a smaller region of interest."
    if isinstance(error, OSError):
        return f"{error.strerror or 'The file cannot be used'}; check the path, the space and the permission."
    return f"Something went wrong in medseg ({type(error).__name__}). Nothing you drew is lost. Please report what you did."


def problem(error: BaseException | str) -> str:
    """Show what went wrong."""
    from napari.utils.notifications import show_error

    text = error if isinstance(error, str) else words(error)
    if not isinstance(error, str):
        _log.debug("medseg_napari", exc_info=error)
    show_error(text)
    return text


def note(text: str) -> None:
    """Show what a person may want to know."""
    from napari.utils.notifications import show_info

    show_info(text)

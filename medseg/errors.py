"""The error tree. Each error is also the fitting builtin, so callers may catch either.

A message says what was found, where (file name, tag, key) and what to do about it. It never contains header text that could
identify a patient, and never the traceback of a library.
"""

from __future__ import annotations

import os
import traceback


class MedsegError(Exception):
    """Root of every error medseg raises on purpose."""


class InputError(MedsegError, ValueError):
    """What was given cannot be used: wrong shape, NaN voxels, too many axes."""


class MissingError(InputError, FileNotFoundError):
    """A file or folder that was named is not there, or a folder holds nothing readable."""


class FormatError(InputError):
    """A file is not what its name says, is truncated, damaged, or of a kind medseg does not read."""


class GeometryError(InputError):
    """Positions, orientations, spacings or frames of reference are missing, inconsistent or contradictory."""


class SpecError(MedsegError, ValueError):
    """A configuration, model header or option is not valid."""


class ModelError(MedsegError, ValueError):
    """A model is unknown, its file is damaged, or it does not fit the image it was asked to segment."""


class DeviceError(MedsegError, RuntimeError):
    """The compute device asked for is not there or ran out of memory."""


class OutputError(MedsegError, OSError):
    """A result could not be written whole: no space, no permission, or ids that do not fit the format."""


class TrainingError(MedsegError, RuntimeError):
    """Training cannot start, resume or go on: no cases, another config in the run folder, a loss that is not finite."""


class MedsegWarning(UserWarning):
    """Something was decided that the user should know about; it also goes into the result's provenance."""


def fault(error: BaseException) -> str:
    """One line about a fault of ours: its kind and place. A library's own message could quote a patient's header."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else "an unknown place"
    return f"internal fault ({type(error).__name__} at {place}); please report it with the command you ran"

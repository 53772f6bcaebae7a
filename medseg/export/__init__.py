"""The files of one case: labels, table, picture, DICOM objects, and the page a clinician reads."""

from medseg.export.files import DEFAULT, KINDS, OF_SERIES, save_case, save_series, save_spec

__all__ = ["DEFAULT", "KINDS", "OF_SERIES", "save_case", "save_series", "save_spec"]

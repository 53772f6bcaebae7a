"""The files of one case: labels, table, picture, DICOM objects, and the page a clinician reads."""

from medseg.export.files import DEFAULT, KINDS, save_case, save_spec

__all__ = ["DEFAULT", "KINDS", "save_case", "save_spec"]

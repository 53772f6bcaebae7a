"""Scores of predicted instances against truth. NumPy arrays in, numbers out; no images, no files."""

from medseg.metrics.matching import Counts, Overlap, average_precision, match, overlap

__all__ = ["Counts", "Overlap", "average_precision", "match", "overlap"]

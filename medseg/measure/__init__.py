"""Physical measurements of instances: `measure` gives a table, `burden` sums a case up.

Definitions and sources are in the module of each group: `lesions` (volume, RECIST axes), `intensity` (HU and others), `pet` (SUV),
`cells` (shape) and `neighbours`.
"""

from medseg.measure.table import burden, in_unit, measure

__all__ = ["burden", "in_unit", "measure"]

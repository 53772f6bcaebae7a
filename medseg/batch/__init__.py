"""Whole studies, unattended: cases found, each done in isolation and once, a ledger of it, tables and a report of all.

Nothing but `key.csv` in an output folder says which file or patient a case is.
"""

from medseg.batch.cases import Case, Input
from medseg.batch.discover import discover
from medseg.batch.ledger import Ledger
from medseg.batch.run import run

__all__ = ["Case", "Input", "Ledger", "discover", "run"]

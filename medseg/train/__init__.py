"""Training: a generator of events that can stop and go on at any checkpoint."""

from medseg.data.check import Checked
from medseg.train.loop import Done, Paused, Step, train

__all__ = ["Checked", "Done", "Paused", "Step", "train"]

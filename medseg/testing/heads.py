"""The contract of a head, as tests: inherit `HeadContract`, name a spec, and run pytest."""

from __future__ import annotations

from medseg.testing.decoding import DecodeContract
from medseg.testing.learning import LearnContract


class HeadContract(DecodeContract, LearnContract):
    """Everything the pipeline and the training lean on in a head.

    A head that has no torch half inherits `medseg.testing.decoding.DecodeContract` alone. The suite uses the pytest marker
    ``slow``; register it where markers are strict.

    Attributes
    ----------
    spec : HeadBase
        Spec of the head; both halves are found by its ``kind``.
    separates_touching : bool
        Whether the head tells touching objects apart; otherwise it is given objects with gaps.
    iou : float
        Overlap with which objects must come back from perfect maps.
    overfit_steps, overfit_rate : int, float
        Adam steps (twice as many in 3-D), and their rate, in which a net of 8, 16, 32 filters must learn one image by
        heart.

    Examples
    --------
    >>> from medseg.spec import OffsetSpec
    >>> class TestOffset(HeadContract):
    ...     spec = OffsetSpec()
    """

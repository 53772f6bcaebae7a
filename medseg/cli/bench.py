"""``medseg bench``: speed as ratios to a floor measured in the same run, median of several."""

from __future__ import annotations

from typing import Annotated

import typer

from medseg.cli.common import table


def bench(
    what: Annotated[str, typer.Argument(help="startup, segment, score, io or batch.")],
    repeat: Annotated[int, typer.Option(min=1, help="Runs of each; the median is shown.")] = 5,
) -> int:
    """Measure start-up, segmentation, scoring, reading or batches on this machine."""
    from medseg.bench.timing import BENCHES

    if what not in BENCHES:
        raise typer.BadParameter(f"{what!r} is none of {', '.join(BENCHES)}")
    found = BENCHES[what](repeat)
    rows = [
        [r.name, f"{r.seconds:.3f}", f"{r.ratio:.2f}", f"{r.peak:.2f}" if r.peak is not None else ""] for r in found
    ]
    table(what, ["what", "seconds", "ratio to the first", "peak memory / data" if rows[0][-1] else ""], rows)
    return 0

"""Curves of a summary as SVG text: drawn without pyplot, the same bytes for the same numbers."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medseg.metrics.response import Froc
from medseg.metrics.rows import Curves, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours; marker and line tell the curves apart as well
BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"
_STYLES = ((BLUE, "-", "o"), (ORANGE, "--", "s"), (GREEN, ":", "^"))
_POINTS = 1000  # of a curve; more cannot be told apart at this size
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "path",  # the page looks the same where a font is missing
    "svg.hashsalt": "medseg",  # else ids in the file change from run to run
    "text.usetex": False,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def ap_over_iou(curves: Curves) -> str:
    """AP over the IoU that a match needs, in both averagings."""

    def plot(axes: Axes) -> None:
        for name, values, (colour, line, mark) in zip(
            ("pooled", "image mean"), (curves.ap_pooled, curves.ap_mean), _STYLES, strict=False
        ):
            axes.plot(curves.thresholds, values, line, color=colour, marker=mark, markersize=4, label=name)
        axes.set(xlabel="IoU that a match needs", ylabel="AP = TP / (TP + FP + FN)", ylim=(-0.02, 1.02))
        _legend(axes)

    return _svg(plot)


def precision_over_recall(curves: Curves) -> str:
    """Precision over recall at IoU .5, all images together; empty without scores."""
    points = curves.precision_recall
    if points is None or not len(points.recall):
        return ""
    recall, precision = _thinned(points.recall, points.precision)

    def plot(axes: Axes) -> None:
        axes.plot(recall, precision, "-", color=BLUE, marker="o" if len(recall) <= 20 else None, markersize=4)
        axes.set(xlabel="recall at IoU .5", ylabel="precision", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))

    return _svg(plot)


def sensitivity_over_false(froc: dict[str, Froc]) -> str:
    """FROC: sensitivity over false positives per scan by hit rule; empty without scores."""
    if not froc:
        return ""

    def plot(axes: Axes) -> None:
        for (name, one), (colour, line, mark) in zip(froc.items(), _STYLES, strict=False):
            rate = np.append(one.curve_rate, max(16.0, float(one.curve_rate[-1])))  # beyond the last point it stays
            rate, found = _thinned(rate, np.append(one.curve_sensitivity, one.curve_sensitivity[-1]))
            axes.plot(rate, found, line, color=colour, linewidth=1.5)
            axes.plot(
                one.rates, one.sensitivity, mark, color=colour, markersize=5, linestyle=line, linewidth=0, label=name
            )
        axes.set_xscale("log", base=2)
        axes.set(xlabel="false positives per scan", ylabel="sensitivity", xlim=(1 / 12, 12), ylim=(-0.02, 1.02))
        axes.set_xticks([0.125, 0.25, 0.5, 1, 2, 4, 8], ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
        _legend(axes, "a hit is")

    return _svg(plot)


def by_size(rows: Sequence[Row], sizes: Sequence[str]) -> str:
    """Pooled figures with their intervals by size, from rows of one figure or more; empty without any."""
    names = list(dict.fromkeys(row.figure for row in rows))
    if not rows:
        return ""

    def plot(axes: Axes) -> None:
        for n, (name, (colour, _, mark)) in enumerate(zip(names, _STYLES, strict=False)):
            for row in (row for row in rows if row.figure == name and row.estimate.pooled is not None):
                place, value = (
                    list(sizes).index(row.size) + 0.18 * (n - (len(names) - 1) / 2),
                    row.estimate.pooled or 0.0,
                )
                low, high = row.estimate.pooled_interval or (value, value)
                axes.plot([place, place], [low, high], "-", color=colour, linewidth=1.5)
                axes.plot([place], [value], mark, color=colour, markersize=6)
            axes.plot([], [], mark, color=colour, markersize=6, label=name)
        axes.set_xticks(
            range(len(sizes)),
            [size.replace(" to ", "\nto ") if size[0].isdigit() else size for size in sizes],
            fontsize=8,
        )
        axes.set(ylabel="pooled", ylim=(-0.02, 1.02), xlim=(-0.5, len(sizes) - 0.5))
        _legend(axes)

    return _svg(plot)


def _legend(axes: Axes, title: str = "") -> None:
    """Names of the curves above the axes: inside, they would hide the low values of what was scored badly."""
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, borderpad=0, title=title)


def _thinned(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Some of the points of a long curve, its ends among them."""
    if len(x) <= _POINTS:
        return x, y
    some = np.unique(np.linspace(0, len(x) - 1, _POINTS).astype(np.intp))
    return x[some], y[some]


def _svg(plot: Callable[[Axes], None]) -> str:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context(_SETTINGS):
        figure = Figure(figsize=(4.9, 3.4), layout="constrained")
        FigureCanvasSVG(figure)
        plot(figure.add_subplot())
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()

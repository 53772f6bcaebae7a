"""Figures in a form that adds up over cases, and how sure they are: resampling the cases resamples sums, never voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Interval = tuple[float, float]
Pooling = Literal["ratio", "total", "rate", "none"]

RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Sums:
    """One figure of one case, as a ratio whose parts add up over cases.

    Attributes
    ----------
    part, whole : float64 (R,)
        The figure is part / whole; of several rows (one per threshold or class) their mean.
    other : float64 (R,)
        What decides where `whole` is 0: nothing on the other side either is 1, else 0.
    pooling : "ratio", "total", "rate" or "none"
        What pooling over cases means: the ratio of the sums; the sum of the parts; the sum per case; or nothing (a
        distance in mm).
    skip : bool
        Leave rows with nothing on either side out of the mean (classes that do not occur); else they are 1.
    """

    part: Floats
    whole: Floats
    other: Floats
    pooling: Pooling = "ratio"
    skip: bool = False

    @property
    def value(self) -> float:
        """The figure of this case."""
        return float(_ratios(self.stack(), self.skip))

    def stack(self) -> Floats:
        """The three rows as one array (3, R)."""
        return np.stack([self.part, self.whole, self.other])


def ratio(part: float | Floats, whole: float | Floats, other: float | Floats = 0.0) -> Sums:
    """A ratio that pools as the ratio of sums; with rows, as the mean of such ratios."""
    rows = np.broadcast_arrays(*(np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in (part, whole, other)))
    return Sums(rows[0], rows[1], rows[2])


def total(count: float) -> Sums:
    """A count: its image mean is per case, pooled it is the sum."""
    return Sums(np.array([float(count)]), np.ones(1), np.zeros(1), "total")


def rate(count: float) -> Sums:
    """A count per case, the same in both averagings."""
    return Sums(np.array([float(count)]), np.ones(1), np.zeros(1), "rate")


def single(value: float) -> Sums:
    """A figure of one case that cannot be pooled, such as a distance; it has an image mean only."""
    return Sums(np.array([float(value)]), np.ones(1), np.zeros(1), "none")


@dataclass(frozen=True)
class Estimate:
    """A figure over cases, in both averagings, each with its 95 % interval (None: too few cases, or no such averaging)."""

    cases: int
    pooled: float | None
    pooled_interval: Interval | None
    mean: float | None
    mean_interval: Interval | None
    pooling: Pooling = "ratio"


class Resampling:
    """Draws of the cases with replacement, the same for every figure, so that figures can be compared.

    Bootstrap over cases (Efron 1979), percentile interval. A draw is how often each case occurs in it, so a figure's
    spread costs one matrix product. With fewer than 2 cases there is no interval.
    """

    def __init__(self, cases: int, seed: int = 0, resamples: int = RESAMPLES) -> None:
        rng = np.random.default_rng(seed)
        self.cases = cases
        some = resamples if cases > 1 else 0
        self.weights = rng.multinomial(cases, np.full(cases, 1 / max(cases, 1)), size=some).astype(np.float64)

    def estimate(self, sums: Sequence[Sums | None]) -> Estimate:
        """Pool one figure over the cases: one `Sums` for each, None where the case does not have it."""
        use = np.array([s is not None for s in sums], dtype=np.bool_)
        if not use.any():
            return Estimate(0, None, None, None, None)
        some = [s for s in sums if s is not None]
        stack = np.stack([s.stack() for s in some])  # (n, 3, R)
        weights = self.weights[:, use]
        values = np.array([s.value for s in some])
        mean = float(values.mean())
        drawn = weights.sum(axis=1)
        ok = drawn > 0
        means = (weights[ok] @ values) / drawn[ok]
        pooled = self._pooled(stack, weights, some[0])
        return Estimate(len(some), *pooled, mean, interval(means), some[0].pooling)

    def _pooled(self, stack: Floats, weights: Floats, like: Sums) -> tuple[float | None, Interval | None]:
        if like.pooling == "none":
            return None, None
        drawn = (weights @ stack.reshape(len(stack), -1)).reshape(-1, *stack.shape[1:])
        whole = stack.sum(axis=0)
        if like.pooling == "total":
            return float(whole[0, 0]), interval(drawn[:, 0, 0])
        return float(_ratios(whole, like.skip)), interval(_ratios(drawn, like.skip))


def interval(values: Floats) -> Interval | None:
    """Middle 95 % of resampled values; None without any."""
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def classes_mean(rows: Sequence[Sums]) -> Sums:
    """The mean over classes of a figure that is a ratio, without the classes that do not occur."""
    part, whole, other = np.concatenate([one.stack() for one in rows], axis=1)
    return Sums(part, whole, other, skip=True)


def _ratios(stack: Floats, skip: bool) -> Floats:
    """Figures of stacks (..., 3, R): the mean over R of part / whole."""
    part, whole, other = stack[..., 0, :], stack[..., 1, :], stack[..., 2, :]
    empty = np.where(other > 0, 0.0, 1.0)
    values: Floats = np.divide(part, whole, out=empty, where=whole > 0)
    if not skip:
        mean: Floats = values.mean(axis=-1)
        return mean
    there = (whole > 0) | (other > 0)
    count = there.sum(axis=-1)
    out: Floats = np.divide((values * there).sum(axis=-1), count, out=np.ones(count.shape), where=count > 0)
    return out

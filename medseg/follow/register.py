"""Lay one visit's image onto another's: rigid, affine or deformable, by mutual information (Mattes 2003), with SimpleITK.

The result maps places of the later image to places of the earlier one. Nothing is resampled: lesions are carried over as points.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import GeometryError, InputError
from medseg.image import Image

Points = npt.NDArray[np.float64]

_LPS = np.array([-1.0, -1.0, 1.0])
_COARSE = 2.5  # mm of the voxels that images are compared on
_SEED = 1


@dataclass(frozen=True)
class Alignment:
    """A map from the world of one image to that of another.

    Attributes
    ----------
    kind : str
        "none", "rigid", "affine" or "deformable".
    likeness : float
        Normalised correlation of the two images where they overlap, after alignment; NaN for none.
    """

    kind: str
    likeness: float
    _transform: Any = None
    _turn: Points = field(default_factory=lambda: _LPS)

    def __call__(self, points: Points) -> Points:
        """Map world points (N, 3), RAS mm."""
        if self._transform is None:
            return points
        lps = points * self._turn
        if not self._transform.IsLinear():
            return np.array([self._transform.TransformPoint(p) for p in lps.tolist()]).reshape(-1, 3) * self._turn
        # a linear map is read off four points
        start = np.array(self._transform.TransformPoint((0.0, 0.0, 0.0)))
        columns = [np.array(self._transform.TransformPoint(tuple(e))) - start for e in np.eye(3).tolist()]
        return np.asarray((lps @ np.array(columns) + start) * self._turn)

    def back(self, points: Points) -> Points:
        """Map world points (N, 3) of the other image to this one: where a place that went there came from, to 0.1 mm.

        Raises
        ------
        GeometryError
            The map folds there.
        """
        if self._transform is None:
            return points
        guess = points.copy()
        for _ in range(200):
            off = points - self(guess)
            if np.abs(off).max(initial=0.0) < 0.1:
                return guess
            guess = guess + 0.7 * off
        raise GeometryError("The registration folds space at a lesion; give --registration affine.")


def align(later: Image, earlier: Image, kind: str, knot: float = 40.0) -> Alignment:
    """Find where each place of a later image was in an earlier one.

    Parameters
    ----------
    later, earlier
        3-D images of the same body part, one channel each.
    kind
        "auto", "none", "rigid", "affine" or "deformable" (`medseg.spec.FollowSpec.registration`).
    knot
        mm between the knots of the deformation.

    Raises
    ------
    GeometryError
        An image is not 3-D, its spacing is not known, or, without registration, the frames of reference differ.
    InputError
        The images do not overlap however they are laid.
    """
    for image in (later, earlier):
        if image.grid.ndim != 3 or not image.grid.known:
            raise GeometryError("Lesions are followed in 3-D images whose voxel spacing is known.")
    if later.grid.space != earlier.grid.space:
        raise GeometryError(
            "One visit's image knows how the patient lies and the other's does not; give both as DICOM or NIfTI."
        )
    one, two = later.grid.frame, earlier.grid.frame
    same = bool(one) and one == two
    if kind == "none" and one and two and not same:
        raise GeometryError("The visits have different frames of reference, so they must be registered.")
    if kind == "none" or (kind == "auto" and same):
        return Alignment("none", float("nan"))
    wanted = "affine" if kind == "auto" else kind
    fixed, moving = _coarse(later), _coarse(earlier)
    transform = _linear(fixed, moving, wanted)
    if wanted == "deformable":
        transform = _deformed(fixed, moving, transform, knot)
    turn = _LPS if later.grid.space == "patient" else np.ones(3)  # as `Grid.to_itk` does
    return Alignment(wanted, _likeness(fixed, moving, transform), transform, turn)


def _sitk() -> Any:
    """SimpleITK, which tells no types."""
    return import_module("SimpleITK")


def _coarse(image: Image) -> Any:
    """Return the image on voxels of about 2.5 mm, clipped to its usual values."""
    sitk = _sitk()
    grid = image.grid.resample(tuple(max(_COARSE, s) for s in image.grid.spacing))
    step = tuple(max(1, int(_COARSE / s)) for s in image.grid.spacing)
    voxels = np.asarray(image.voxels()[0], dtype=np.float32)
    if max(step) > 1:
        from scipy.ndimage import uniform_filter

        voxels = uniform_filter(voxels, step)
    from medseg.ops.resample import onto

    low, high = np.percentile(voxels[:: step[0], :: step[1], :: step[2]], [0.5, 99.8])
    values = onto(np.clip(voxels, low, max(high, low + 1e-6)), image.grid, grid, order=1, outside=float(low))
    out = sitk.GetImageFromArray(np.asarray(values, dtype=np.float32))
    spacing, origin, direction = grid.to_itk()
    out.SetSpacing(spacing)
    out.SetOrigin(origin)
    out.SetDirection(direction)
    return out


def _method(bins: int = 40) -> Any:
    sitk = _sitk()
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(bins)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.2, _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetNumberOfThreads(1)  # sums in one order, so that the result is the same every time
    return method


def _linear(fixed: Any, moving: Any, kind: str) -> Any:
    sitk = _sitk()
    start = _start(fixed, moving)
    rigid = sitk.Euler3DTransform(start)
    _optimise(fixed, moving, rigid)
    if kind == "rigid":
        return rigid
    affine = sitk.AffineTransform(3)
    affine.SetCenter(rigid.GetCenter())
    affine.SetMatrix(rigid.GetMatrix())
    affine.SetTranslation(rigid.GetTranslation())
    _optimise(fixed, moving, affine)
    return affine


def _start(fixed: Any, moving: Any) -> Any:
    """Of the worlds as they are, centres on each other, and masses on each other, the likeliest."""
    sitk = _sitk()
    kinds = (sitk.CenteredTransformInitializerFilter.GEOMETRY, sitk.CenteredTransformInitializerFilter.MOMENTS)
    tries = [sitk.CenteredTransformInitializer(fixed, moving, sitk.Euler3DTransform(), k) for k in kinds]
    still = sitk.Euler3DTransform(tries[0])
    still.SetTranslation((0.0, 0.0, 0.0))
    scored: list[tuple[float, int, Any]] = []
    for one in (still, *tries):
        method = _method()
        method.SetInitialTransform(one, inPlace=False)
        try:
            scored.append((method.MetricEvaluate(fixed, moving), len(scored), one))
        except RuntimeError:  # they do not overlap so
            continue
    if not scored:
        raise InputError(
            "The images of the two visits do not overlap, however they are laid; are they of the same part?"
        )
    return min(scored, key=lambda s: (s[0], s[1]))[2]


def _optimise(fixed: Any, moving: Any, transform: Any) -> None:
    """Improve a transform in place, coarse to fine."""
    method = _method()
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0, minStep=1e-3, numberOfIterations=150, relaxationFactor=0.6, gradientMagnitudeTolerance=1e-6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([4.0, 2.0, 0.0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(fixed, moving)
    except RuntimeError as error:
        raise InputError(
            "The images of the two visits could not be registered; are they of the same part of the body? "
            "Else give --registration none."
        ) from error


def _deformed(fixed: Any, moving: Any, linear: Any, knot: float) -> Any:
    sitk = _sitk()
    extent = [n * s for n, s in zip(fixed.GetSize(), fixed.GetSpacing(), strict=True)]
    mesh = [max(2, round(e / knot)) for e in extent]
    spline = sitk.BSplineTransformInitializer(fixed, mesh, 3)
    method = _method()
    method.SetMovingInitialTransform(linear)
    method.SetOptimizerAsLBFGSB(gradientConvergenceTolerance=1e-5, numberOfIterations=40, maximumNumberOfCorrections=5)
    method.SetInitialTransform(spline, inPlace=True)
    method.SetShrinkFactorsPerLevel([2])
    method.SetSmoothingSigmasPerLevel([2.0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    try:
        method.Execute(fixed, moving)
    except RuntimeError as error:
        raise InputError(
            "The deformation between the two visits could not be found; try --registration affine."
        ) from error
    return sitk.CompositeTransform([linear, spline])


def _likeness(fixed: Any, moving: Any, transform: Any) -> float:
    sitk = _sitk()
    nowhere = -1e30
    laid = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear, nowhere)).ravel()
    here = sitk.GetArrayFromImage(fixed).ravel()
    both = laid > nowhere / 2
    if both.sum() < 2 or here[both].std() == 0 or laid[both].std() == 0:
        return float("nan")
    return float(np.corrcoef(here[both], laid[both])[0, 1])

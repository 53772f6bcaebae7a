"""What other people's scorers say of one case: their own functions, called as they stand, under one set of names.

Each function takes a `cases.Case` (or several) and returns named numbers. Where a peer gives nothing for a case (an error,
a division by nothing), the number is NaN; the test names those cases.
"""

from __future__ import annotations

import importlib.util
import sys
import types
import warnings

import numpy as np
from cases import CLASSES, LOW, SIZES, THRESHOLDS, TOLERANCES, Case

NAN = float("nan")


def stardist(case: Case) -> dict[str, object]:
    """Counts and summed IoU of `stardist.matching` at all thresholds.

    StarDist keeps its IoU in float32. The counts come from its own criterion; the sum from the same matching with the same
    quotient in float64, so that nine digits can be compared.
    """
    from stardist import matching as peer

    peer.matching_criteria["iou, float64"] = _iou
    found = [peer.matching(case.truth, case.prediction, t) for t in LOW + THRESHOLDS]
    exact = [peer.matching(case.truth, case.prediction, t, criterion="iou, float64") for t in THRESHOLDS]
    for one, double in zip(found[len(LOW) :], exact, strict=True):
        if one.tp != double.tp or abs(one.panoptic_quality - double.panoptic_quality) > 1e-6:
            raise AssertionError(f"float32 and float64 disagree: {one}, {double}")
    high = found[len(LOW) :]
    return {
        "low tp": [one.tp for one in found[: len(LOW)]],
        "tp": [one.tp for one in high],
        "fp": [one.fp for one in high],
        "fn": [one.fn for one in high],
        "accuracy": [float(one.accuracy) for one in high],
        "f1": [float(one.f1) for one in high],
        "mean matched": [float(one.mean_matched_score) for one in exact],
        "pq": [float(one.panoptic_quality) for one in exact],
    }


def _iou(overlap: np.ndarray) -> np.ndarray:
    union = overlap.sum(axis=0, keepdims=True) + overlap.sum(axis=1, keepdims=True) - overlap
    return np.divide(overlap, union, out=np.zeros(overlap.shape), where=union > 0)


def cellpose_metrics() -> types.ModuleType:
    """Cellpose's metrics module by itself: importing the package wants torch and torchvision, which scoring does not use."""
    name = "cellpose.metrics"
    if name not in sys.modules:
        spec = importlib.util.find_spec("cellpose")
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError("cellpose")
        package = types.ModuleType("cellpose")
        package.__path__ = list(spec.submodule_search_locations or ())
        for part in ("utils", "dynamics"):  # outlines and flows
            setattr(package, part, types.ModuleType(f"cellpose.{part}"))
            sys.modules[f"cellpose.{part}"] = getattr(package, part)
        sys.modules["cellpose"] = package
        importlib.import_module(name)
    return sys.modules[name]


def cellpose(case: Case) -> dict[str, object]:
    """Counts of `cellpose.metrics.average_precision` at all thresholds (float32, so AP has seven digits)."""
    ap, tp, fp, fn = cellpose_metrics().average_precision(case.truth, case.prediction, list(LOW + THRESHOLDS))
    n = len(LOW)
    return {"low tp": tp[:n], "tp": tp[n:], "fp": fp[n:], "fn": fn[n:], "ap": ap[n:]}


def panoptica(case: Case) -> dict[str, object]:
    """Panoptic quality with IoU > .5, mean IoU and Dice of the pairs, Dice of the foreground, ASSD and HD of its voxel borders."""
    from panoptica import InputType, Panoptica_Evaluator
    from panoptica.instance_matcher import NaiveThresholdMatching
    from panoptica.metrics import Metric

    evaluator = Panoptica_Evaluator(
        expected_input=InputType.UNMATCHED_INSTANCE,
        instance_matcher=NaiveThresholdMatching(matching_threshold=0.5, strict_threshold=True),
        instance_metrics=[Metric.DSC, Metric.IOU],
        global_metrics=[],
    )
    result = evaluator.evaluate(case.prediction, case.truth, voxelspacing=case.spacing)["ungrouped"].to_dict()
    names = {"tp": "tp", "fp": "fp", "fn": "fn", "rq": "rq", "sq": "sq", "pq": "pq", "matched dice": "sq_dsc"}
    values = {name: result.get(key) for name, key in names.items()}
    masks = case.truth > 0, case.prediction > 0
    values |= {"dice": Metric.DSC(*masks), "iou": Metric.IOU(*masks)}
    there = masks[0].any() and masks[1].any()
    values |= {"assd": Metric.ASSD(*masks, voxelspacing=case.spacing) if there else NAN}
    values |= {"hd": Metric.HD(*masks, voxelspacing=case.spacing) if there else NAN}
    return {name: NAN if value is None or not np.isfinite(value) else float(value) for name, value in values.items()}


def coco(cases: list[Case], sizes: str = "all", full: bool = False) -> list[float]:
    """Return mAP, AP50 and AP75 of pycocotools over some cases as images, without its cap of 100 detections.

    Volumes are unrolled into a plane, which changes no IoU. With ``full``, classes and crowd count and the overlapping
    predictions join in; without, all is one class.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, found = COCO(), []
    annotations: list[dict] = []
    for image, case in enumerate(cases, 1):
        for k, one in enumerate(_present(case.truth)):
            annotations.append(
                _coded(case.truth == one, image, int(case.truth_classes[k]) if full else 1)
                | {"id": len(annotations) + 1, "iscrowd": int(full and case.crowd[k])}
            )
        for k, one in enumerate(_present(case.prediction)):
            kind = int(case.classes[k]) if full else 1
            found.append(_coded(case.prediction == one, image, kind) | {"score": float(case.scores[k])})
        for mask, score, kind in case.more if full else ():
            found.append(_coded(mask, image, kind) | {"score": score})
    planes = [case.truth.reshape(-1, case.truth.shape[-1]).shape for case in cases]
    truth.dataset = {
        "images": [{"id": i, "height": h, "width": w} for i, (h, w) in enumerate(planes, 1)],
        "annotations": annotations,
        "categories": [{"id": k} for k in range(1, (CLASSES if full else 1) + 1)],
    }
    truth.createIndex()
    if not found:  # loadRes cannot read an empty list
        found_set = COCO()
        found_set.dataset = truth.dataset | {"annotations": []}
        found_set.createIndex()
    else:
        found_set = truth.loadRes(found)
    judge = COCOeval(truth, found_set, "segm")
    judge.params.maxDets = [10**6]
    judge.params.areaRng, judge.params.areaRngLbl = [list(SIZES[sizes])], [sizes]
    judge.evaluate()
    judge.accumulate()
    precision = judge.eval["precision"][:, :, :, 0, 0]  # threshold, recall, class; -1 where a class has no truth
    there = [precision[..., k] for k in range(precision.shape[2]) if (precision[..., k] > -1).all()]
    if not there:
        return [NAN, NAN, NAN]
    mean = np.mean([one.mean(axis=1) for one in there], axis=0)
    return [float(mean.mean()), float(mean[0]), float(mean[5])]


def _present(labels: np.ndarray) -> list[int]:
    return [int(one) for one in np.unique(labels) if one]


def _coded(mask: np.ndarray, image: int, kind: int) -> dict:
    from pycocotools import mask as rle

    plane = mask.reshape(-1, mask.shape[-1])
    code = rle.encode(np.asfortranarray(plane.astype(np.uint8)))
    return {"image_id": image, "category_id": kind, "segmentation": code, "area": float(mask.sum())}


def surface(case: Case) -> dict[str, object]:
    """Distances of the two foregrounds by surface-distance: percentiles, means in both directions, surface Dice."""
    found = _measured(case.truth > 0, case.prediction > 0, case.spacing)
    if not len(found["distances_gt_to_pred"]) or not len(found["distances_pred_to_gt"]):
        return {"hd95": NAN, "hd": NAN, "hd50": NAN, "means": [NAN] * 2, "areas": [NAN] * 2, "nsd": [NAN] * 3}
    import surface_distance as peer

    return {
        "hd95": peer.compute_robust_hausdorff(found, 95),
        "hd": peer.compute_robust_hausdorff(found, 100),
        "hd50": peer.compute_robust_hausdorff(found, 50),
        "means": peer.compute_average_surface_distance(found),
        "areas": [found["surfel_areas_gt"].sum(), found["surfel_areas_pred"].sum()],
        "nsd": [peer.compute_surface_dice_at_tolerance(found, t) for t in TOLERANCES],
    }


def surface_table(spacing: tuple[float, ...]) -> np.ndarray:
    """Area of each neighbourhood of 2 x 2 (x 2) voxels; bit k of its number is the voxel at position bit a of k on axis a."""
    from surface_distance import lookup_tables as tables

    ndim, corners = len(spacing), 2 ** len(spacing)
    kernel = tables.ENCODE_NEIGHBOURHOOD_2D_KERNEL if ndim == 2 else tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL
    make = "create_table_neighbour_code_to_" + ("contour_length" if ndim == 2 else "surface_area")
    areas = getattr(tables, make)(spacing)
    weights = [kernel[tuple(k >> axis & 1 for axis in range(ndim))] for k in range(corners)]
    codes = [sum(w for k, w in enumerate(weights) if number >> k & 1) for number in range(2**corners)]
    return np.array([areas[code] for code in codes])


def _measured(truth: np.ndarray, prediction: np.ndarray, spacing: tuple[float, ...]) -> dict[str, np.ndarray]:
    if not hasattr(np, "Inf"):  # the package was last released for NumPy 1
        np.Inf = np.inf
    import surface_distance as peer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # scipy.ndimage.filters
        return peer.compute_surface_distances(truth, prediction, spacing)


def hd95(truth: np.ndarray, prediction: np.ndarray, spacing: tuple[float, ...]) -> float:
    """Return the 95th percentile by surface-distance, infinite where one side is empty."""
    import surface_distance as peer

    found = _measured(truth, prediction, spacing)
    return float(peer.compute_robust_hausdorff(found, 95)) if prediction.any() and truth.any() else float("inf")

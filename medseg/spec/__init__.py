"""Specs: the frozen, validated settings every face of medseg reads. Every default in the project is written here, once.

A spec comes from YAML (training), from the header of a model file (inference) or from keywords (the API), and is always the same
class. Unknown keys are refused. Specs that come in several kinds are told apart by ``kind``.
"""

from medseg.spec.base import Spec, load_yaml, parse
from medseg.spec.batch import BatchSpec
from medseg.spec.case import CaseSpec
from medseg.spec.clicks import ClickSpec
from medseg.spec.finding import FindingSpec
from medseg.spec.follow import FollowSpec
from medseg.spec.heads import (
    HEAD_SPECS,
    EmbeddingSpec,
    FlowSpec,
    HeadBase,
    HeadSpec,
    OffsetSpec,
    SemanticSpec,
    StarSpec,
    WatershedSpec,
)
from medseg.spec.measure import MeasureSpec
from medseg.spec.model import SPEC_VERSION, CalibrationSpec, ModelSpec, RunSpec, ScoreSpec
from medseg.spec.net import NetSpec, PreprocessSpec
from medseg.spec.separate import SeparateSpec
from medseg.spec.training import AugmentSpec, DataSpec, SourceSpec, SplitSource, SplitSpec, TrainSpec

__all__ = [
    "AugmentSpec",
    "ClickSpec",
    "BatchSpec",
    "CaseSpec",
    "DataSpec",
    "EmbeddingSpec",
    "FindingSpec",
    "FlowSpec",
    "HEAD_SPECS",
    "FollowSpec",
    "HeadBase",
    "HeadSpec",
    "MeasureSpec",
    "ModelSpec",
    "NetSpec",
    "OffsetSpec",
    "PreprocessSpec",
    "RunSpec",
    "SPEC_VERSION",
    "CalibrationSpec",
    "ScoreSpec",
    "SemanticSpec",
    "SeparateSpec",
    "SourceSpec",
    "Spec",
    "SplitSource",
    "SplitSpec",
    "StarSpec",
    "TrainSpec",
    "WatershedSpec",
    "load_yaml",
    "parse",
]

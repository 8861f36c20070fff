"""Anonymizers: what anonymizes or replaces the images under audit."""

from cldmray.anonymizers.base import AnonymizeFunction, Anonymizer, Batch, GroupAnonymizer
from cldmray.anonymizers.baselines import Blur, ConditionMap, NoOp, Pixelate
from cldmray.anonymizers.k_same import KSame
from cldmray.anonymizers.precomputed import Precomputed

__all__ = [
    "AnonymizeFunction",
    "Anonymizer",
    "Batch",
    "Blur",
    "ConditionMap",
    "GroupAnonymizer",
    "KSame",
    "NoOp",
    "Pixelate",
    "Precomputed",
]

"""Anonymizers: what redraws or replaces the pictures under audit."""

from cldmray.anonymizers.base import Anonymizer, Batch, GroupAnonymizer, Redraw
from cldmray.anonymizers.baselines import Blur, ConditionMap, Copy, Pixelate
from cldmray.anonymizers.k_same import KSame
from cldmray.anonymizers.precomputed import Pictures

__all__ = [
    "Anonymizer",
    "Batch",
    "Blur",
    "ConditionMap",
    "Copy",
    "GroupAnonymizer",
    "KSame",
    "Pictures",
    "Pixelate",
    "Redraw",
]

"""Anonymizers: what redraws or replaces the pictures under audit."""

from cldmray.anonymizers.base import Anonymizer, Batch, GroupAnonymizer, Redraw
from cldmray.anonymizers.blur import Blur
from cldmray.anonymizers.condition_map import ConditionMap
from cldmray.anonymizers.copy import Copy
from cldmray.anonymizers.k_same import KSame
from cldmray.anonymizers.pictures import Pictures
from cldmray.anonymizers.pixelate import Pixelate

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

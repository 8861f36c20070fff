"""Anonymizers, the things under test: they turn original images into anonymized ones.

``base`` says what an anonymizer is, ``baselines`` has blur, pixelation and the controls, ``k_same``
the mean face of k people, ``precomputed`` images that were anonymized elsewhere, ``function`` a
function of one's own, and ``diffusion`` Stable Diffusion and FLUX with ControlNets. ``batching``
and ``memory`` fit batches into a device's memory.
"""

from cldmray.anonymizers.base import AnonymizeFunction, Anonymizer, Batch, GroupAnonymizer
from cldmray.anonymizers.baselines import Blur, ConditionMap, NoOp, Pixelate
from cldmray.anonymizers.diffusion import Control, Diffusion, Lora
from cldmray.anonymizers.function import FunctionAnonymizer
from cldmray.anonymizers.k_same import KSame
from cldmray.anonymizers.precomputed import Precomputed

__all__ = [
    "AnonymizeFunction",
    "Anonymizer",
    "Batch",
    "Blur",
    "ConditionMap",
    "Control",
    "Diffusion",
    "FunctionAnonymizer",
    "GroupAnonymizer",
    "KSame",
    "Lora",
    "NoOp",
    "Pixelate",
    "Precomputed",
]

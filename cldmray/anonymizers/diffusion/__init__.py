"""Diffusion models as anonymizers: Stable Diffusion, FLUX or the embedded CLDM, with ControlNets.

``settings`` has what a user may set, ``anonymizer`` what the audit asks, ``loading`` turns the
settings into a pipeline of diffusers, and ``inference`` runs that pipeline batch by batch.
``families`` tells UNets, Stable Diffusion 3 and FLUX apart; the other modules are their parts.
Nothing of torch or diffusers is imported before an anonymizer is opened.
"""

from cldmray.anonymizers.diffusion.anonymizer import Diffusion
from cldmray.anonymizers.diffusion.lora import Lora
from cldmray.anonymizers.diffusion.settings import Control, DiffusionSettings

__all__ = ["Control", "Diffusion", "DiffusionSettings", "Lora"]

"""Condition extractors: the maps that steer a conditioned diffusion model."""

from cldmray.conditions.base import Condition
from cldmray.conditions.canny import Canny
from cldmray.conditions.coarse import Coarse
from cldmray.conditions.controlnet_aux import ControlNetAux
from cldmray.conditions.depth import Depth
from cldmray.conditions.none import NoCondition
from cldmray.conditions.soft_edge import SoftEdge

__all__ = ["Canny", "Coarse", "Condition", "ControlNetAux", "Depth", "NoCondition", "SoftEdge"]

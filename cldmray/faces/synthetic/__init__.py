"""Images of people who do not exist: three-dimensional heads, modelled and rendered.

:func:`~cldmray.faces.synthetic.scene.render` takes one image with its depth, masks and landmarks.
"""

from cldmray.faces.synthetic.identity import AGES, SEXES, SKIN_TONES, groups
from cldmray.faces.synthetic.source import SyntheticFaces, attributes_table

__all__ = ["AGES", "SEXES", "SKIN_TONES", "SyntheticFaces", "attributes_table", "groups"]

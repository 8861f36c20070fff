"""Regions of an aligned image: the face, or its surroundings, with the other one masked."""

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from cldmray.arrays import Images

Region = Literal["face", "surroundings"]
REGIONS: tuple[Region, ...] = get_args(Region)
FACE = 0.8
"""The face's share of the image's sides."""
GREY = 128
"""What masked pixels are filled with; the same in every image, so that it says nothing."""


def ellipse(height: int, width: int, share: float) -> npt.NDArray[np.bool_]:
    """Central ellipse whose axes are ``share`` of the sides: bool, shape (height, width)."""
    down, across = np.ogrid[:height, :width]
    y = (2 * down + 1 - height) / (share * height)
    x = (2 * across + 1 - width) / (share * width)
    inside: npt.NDArray[np.bool_] = x**2 + y**2 <= 1
    return inside


def keep_region(images: Images, region: Region, share: float = FACE) -> Images:
    """Images with everything but one region filled with mean grey.

    The face is the central ellipse, which is right where faces stand in the middle and fill the
    image: in aligned crops and in synthetic people. Hair, ears and the outline of the head lie
    on both sides of it.

    Args:
        images: uint8, shape (N, height, width, 3).
        region: the one that is kept.
        share: the ellipse's share of the sides, in (0, 1].
    """
    inside = ellipse(images.shape[1], images.shape[2], share)
    kept = inside if region == "face" else ~inside
    masked: Images = np.where(kept[..., None], images, np.uint8(GREY))
    return masked

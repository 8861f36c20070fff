"""Augmented copies of images, made once before a training."""

import cv2
import numpy as np

from cldmray.arrays import Images


def augmented_copies(images: Images, copies_per_image: int, seed: int) -> Images:
    """Each image ``copies_per_image`` times: itself, mirrored, then turned, scaled and shifted.

    Args:
        images: uint8 (N, h, w, 3).
        copies_per_image: at least 1.
        seed: of the turns, scales and shifts.

    Returns:
        uint8 (N * copies_per_image, h, w, 3): all images, then all mirrored ones, and so on.
    """
    versions = [images, images[:, :, ::-1]]
    random = np.random.default_rng(seed)
    centre = ((images.shape[2] - 1) / 2, (images.shape[1] - 1) / 2)
    for extra in range(2, copies_per_image):
        moved = np.empty_like(images)
        for i, image in enumerate(images):
            matrix = cv2.getRotationMatrix2D(
                centre, random.uniform(-6, 6), random.uniform(0.97, 1.12)
            )
            matrix[:, 2] = matrix[:, 2] + random.uniform(-2.5, 2.5, 2)
            source = image if extra % 2 == 0 else np.ascontiguousarray(image[:, ::-1])
            moved[i] = cv2.warpAffine(
                source, matrix, image.shape[1::-1], flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REFLECT_101,
            )  # fmt: skip
        versions.append(moved)
    return np.concatenate(versions[:copies_per_image])

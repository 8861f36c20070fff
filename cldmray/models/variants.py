"""Versions of images that a training shows beside the images themselves."""

import cv2
import numpy as np

from cldmray.arrays import Images


def image_variants(images: Images, variants: int, seed: int) -> Images:
    """Each image ``variants`` times: itself, mirrored, then shifted and scaled a little."""
    versions = [images, images[:, :, ::-1]]
    random = np.random.default_rng(seed)
    centre = ((images.shape[2] - 1) / 2, (images.shape[1] - 1) / 2)
    for extra in range(2, variants):
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
    return np.concatenate(versions[:variants])

"""Versions of photographs that a training shows beside the photographs themselves."""

import cv2
import numpy as np

from cldmray.arrays import Pictures


def picture_variants(pictures: Pictures, variants: int, seed: int) -> Pictures:
    """Each picture ``variants`` times: itself, mirrored, then shifted and scaled a little."""
    versions = [pictures, pictures[:, :, ::-1]]
    random = np.random.default_rng(seed)
    centre = ((pictures.shape[2] - 1) / 2, (pictures.shape[1] - 1) / 2)
    for extra in range(2, variants):
        moved = np.empty_like(pictures)
        for i, picture in enumerate(pictures):
            matrix = cv2.getRotationMatrix2D(
                centre, random.uniform(-6, 6), random.uniform(0.97, 1.12)
            )
            matrix[:, 2] = matrix[:, 2] + random.uniform(-2.5, 2.5, 2)
            source = picture if extra % 2 == 0 else np.ascontiguousarray(picture[:, ::-1])
            moved[i] = cv2.warpAffine(
                source, matrix, picture.shape[1::-1], flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REFLECT_101,
            )  # fmt: skip
        versions.append(moved)
    return np.concatenate(versions[:variants])

"""Gaussian blur, the newspaper's classic."""

from dataclasses import dataclass

import cv2
import numpy as np

from cldmray.anonymizers.base import Anonymizer, Batch, Redraw
from cldmray.anonymizers.labels import check_label
from cldmray.faces.records import Pictures


@dataclass(frozen=True)
class Blur(Anonymizer):
    """Gaussian blur with a mirrored border.

    Attributes:
        sigma: standard deviation in pixels of the picture as it is audited, > 0.
        label: name in tables; None: ``blur``.
    """

    sigma: float = 4.0
    label: str | None = None

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise ValueError(f"sigma must be above 0, not {self.sigma}")
        check_label(self.label)

    @property
    def name(self) -> str:
        return self.label or "blur"

    def open(self) -> Redraw:
        return self._redraw

    def _redraw(self, batch: Batch) -> Pictures:
        blurred = np.empty_like(batch.images)
        for position, image in enumerate(batch.images):
            blurred[position] = cv2.GaussianBlur(
                image, (0, 0), self.sigma, borderType=cv2.BORDER_REFLECT
            )
        return blurred

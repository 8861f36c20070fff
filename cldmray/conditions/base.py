"""Condition, the extractor of maps such as edges or depth that steer a diffusion model."""

from abc import ABC, abstractmethod

from cldmray.arrays import Images


class Condition(ABC):
    """Maps images to the maps that steer a conditioned diffusion model.

    Subclasses are frozen dataclasses whose fields are their settings, so that a condition can be
    written in YAML, hashed and sent to any worker; heavy weights load on the first call.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Red(Condition):
    ...     name = "red"
    ...     def __call__(self, images):
    ...         return images[..., :1].repeat(3, axis=-1)
    >>> import numpy as np
    >>> Red()(np.array([[[[7, 8, 9]]]], np.uint8))
    array([[[[7, 7, 7]]]], dtype=uint8)
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Name in tables: ``canny``, ``soft_edge``, ``depth``, ..."""

    def check(self) -> None:  # noqa: B027
        """Find out before any work starts whether everything that it needs is installed.

        Raises:
            CldmrayError: it is not; the message says what to do.
        """

    @abstractmethod
    def __call__(self, images: Images) -> Images:
        """Condition maps of a batch.

        Args:
            images: RGB, uint8, shape (N, height, width, 3).

        Returns:
            Maps, uint8, shape (N, height, width, 3), same size as the input; grey maps repeat
            their one channel, as diffusers' ControlNet pipelines expect.
        """

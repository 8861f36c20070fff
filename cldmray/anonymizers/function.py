"""A plain function as an anonymizer, for notebooks and the Python API."""

from collections.abc import Callable
from dataclasses import field

import numpy as np

from cldmray.anonymizers.base import AnonymizeFunction, Anonymizer, Batch, Seeds
from cldmray.anonymizers.carried import Content
from cldmray.arrays import Images
from cldmray.errors import BadInputError, ConfigError
from cldmray.hashing import EXCLUDED_FROM_KEY, digest
from cldmray.results.names import Label, check_label
from cldmray.settings import checked_dataclass

ImagesFunction = Callable[[Images, Seeds], Images]
"""Maps images (N, height, width, 3) and seeds (N,) to anonymized images of the same shape."""


@checked_dataclass
class FunctionAnonymizer(Anonymizer):
    """Anonymizes with a function ``(images, seeds) -> images``.

    Ray sends the function to the workers, so that a notebook's functions and lambdas work, too.
    A result is kept until the function's source, or a value that it carries, changes: defaults,
    enclosed values, the arguments of a ``functools.partial``, the attributes of an object. What it
    reads from modules or files does not count. A value that cannot be pickled, such as OpenCV's
    ``CLAHE``, counts by its class and attributes only; let the function carry
    the numbers that it is made of, too.

    Attributes:
        function: gets RGB images, uint8, shape (N, height, width, 3), and seeds, int64, shape
            (N,); returns images of the same shape and type. Each image may depend on itself and
            its seed only.
        label: name in tables; None: the function's name.

    >>> def darken(images, seeds):
    ...     return images // 2
    >>> anonymizer = FunctionAnonymizer(darken)
    >>> anonymizer.name
    'darken'
    >>> batch = Batch(["a"], np.full((1, 4, 4, 3), 100, np.uint8), np.zeros(1, np.int64))
    >>> anonymizer.open()(batch).max()
    np.uint8(50)
    """

    function: ImagesFunction = field(metadata=EXCLUDED_FROM_KEY)
    label: Label | None = None

    def __post_init__(self) -> None:
        if self.label is None:
            name = getattr(self.function, "__name__", type(self.function).__name__)
            object.__setattr__(self, "label", "function" if name == "<lambda>" else name)
        check_label(self.label)

    @property
    def name(self) -> str:
        return str(self.label)

    def version(self) -> str:
        """Hash of the function's source and of the values that it carries.

        Raises:
            ConfigError: they are nested too deeply.
        """
        try:
            return digest(Content().of(self.function))[:16]
        except RecursionError as error:
            raise ConfigError(
                f"{self.name}: the values that the function carries are nested too deeply to tell "
                "whether they have changed: write an Anonymizer with a version() instead"
            ) from error

    def open(self) -> AnonymizeFunction:
        return self._anonymize

    def _anonymize(self, batch: Batch) -> Images:
        """Anonymized images of a batch.

        Raises:
            BadInputError: the function returned something else than images of the same shape.
        """
        anonymized = np.asarray(self.function(batch.images, batch.seeds))
        if anonymized.shape != batch.images.shape or anonymized.dtype != np.uint8:
            raise BadInputError(
                f"{self.name}: the function must return uint8 images of shape "
                f"{batch.images.shape}, not {anonymized.dtype} {anonymized.shape}"
            )
        return anonymized

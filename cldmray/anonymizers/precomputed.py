"""Images that somebody anonymized elsewhere, with any tool."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cldmray.anonymizers.base import AnonymizeFunction, Anonymizer, Batch
from cldmray.arrays import Images
from cldmray.errors import BadInputError
from cldmray.faces.base import Crop, Side
from cldmray.faces.decode import InvalidImageError, decode
from cldmray.faces.sources.folder import FolderFaces
from cldmray.hashing import fingerprint_rows, safe_location
from cldmray.results.names import Label
from cldmray.settings import NonEmpty, checked_dataclass


@checked_dataclass
class Precomputed(Anonymizer):
    """A folder laid out like the originals: one sub-folder a person, the same file stems.

    Extensions may differ from the originals'. The folder is listed once for each object, which
    carries its list to the workers when it was already asked what it holds.

    Attributes:
        root: local path, ``s3://`` or ``gs://`` URI.
        source: name of the face source that holds the originals; it enters the sample ids.
        crop: left, top, right, bottom in pixels, a square; None: the central square.
        size: side in pixels to which images are resized; that of the originals.
        label: name in tables.
    """

    root: NonEmpty
    source: NonEmpty
    crop: Crop | None = None
    size: Side = 64
    label: Label = "precomputed"

    @property
    def name(self) -> str:
        return self.label

    def version(self) -> str:
        """Fingerprint of the folder's samples and of their files' sizes and times."""
        listing = self._folder.listing()
        columns = listing["sample_id"].to_pylist(), listing["version"].to_pylist()
        return fingerprint_rows(
            f"{sample} {version}" for sample, version in zip(*columns, strict=True)
        )

    def select(self, sample_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which samples have an image in the folder.

        Raises:
            BadInputError: the folder is missing, empty or laid out in another way.
        """
        return np.array([sample_id in self._locations for sample_id in sample_ids], bool)

    def open(self) -> AnonymizeFunction:
        """List the folder and return the function that reads the images of a batch.

        That function raises BadInputError for a sample without an image, and for a file that
        cannot be read, which it names.
        """
        locations = self._locations
        folder = self._folder

        def read(batch: Batch) -> Images:
            wanted = [self._location(locations, sample_id) for sample_id in batch.sample_ids]
            images = np.empty((len(wanted), self.size, self.size, 3), np.uint8)
            contents = folder.read(wanted)
            rows = zip(batch.sample_ids, wanted, contents, strict=True)
            for position, (sample_id, location, content) in enumerate(rows):
                try:
                    images[position] = decode(content, self.crop, self.size)
                except InvalidImageError as error:
                    raise BadInputError(
                        f"{self.name}: {self.root.rstrip('/')}/{safe_location(location)}, the "
                        f"image of sample {sample_id} (names of people are hashed): {error.reason}"
                    ) from error
            return images

        return read

    def _location(self, locations: dict[str, str], sample_id: str) -> str:
        if sample_id not in locations:
            raise BadInputError(f"{self.name}: no image of sample {sample_id} in {self.root}")
        return locations[sample_id]

    @property
    def _folder(self) -> FolderFaces:
        return FolderFaces(root=self.root, name=self.source, crop=self.crop, size=self.size)

    @cached_property
    def _locations(self) -> dict[str, str]:
        try:
            listing = self._folder.listing()
        except BadInputError as error:
            raise BadInputError(f"{self.name}: {error}") from error
        columns = listing["sample_id"].to_pylist(), listing["location"].to_pylist()
        return dict(zip(*columns, strict=True))

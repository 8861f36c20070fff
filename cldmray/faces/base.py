"""What every source of faces offers: a listing of its samples and their encoded bytes."""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import field
from posixpath import splitext
from typing import Annotated, ClassVar, Literal, NamedTuple

import pyarrow as pa
from pydantic import AfterValidator, Field

from cldmray import hashing
from cldmray.arrays import Images
from cldmray.detection.alignment import (
    framed_template,
    needed_part,
    similarity,
    tight_crop,
    warp,
)
from cldmray.detection.face_search import FoundFace, find_face
from cldmray.detection.yunet import FaceDetector, FindFaces, YuNet
from cldmray.errors import BadInputError, CldmrayError
from cldmray.faces.decode import (
    MAX_PIXELS,
    MOST_PIXELS,
    NO_FACE,
    InvalidImageError,
    decode,
    decode_whole,
)
from cldmray.faces.records import LISTING, NOTES
from cldmray.hashing import EXCLUDED_FROM_KEY, canonicalize, fingerprint
from cldmray.settings import checked_dataclass


def _square(crop: list[int]) -> list[int]:
    if len(crop) != 4:
        raise ValueError("must be four whole numbers left, top, right, bottom")
    left, top, right, bottom = crop
    if not (0 <= left < right and 0 <= top < bottom and right - left == bottom - top):
        raise ValueError("left, top, right, bottom must span a square from 0 on")
    return crop


Crop = Annotated[list[int], AfterValidator(_square)]
"""A square in pixels: left, top, right, bottom."""
Side = Annotated[int, Field(ge=8, le=2048)]
"""Side in pixels of the images that a source gives."""


Shares = tuple[float, float, float, float]
"""Left, top, right, bottom of a square as shares of an image's side."""
Align = Literal["auto", "landmarks", "none"]


class FaceImage(NamedTuple):
    """A square image of a face, and how it was found.

    Attributes:
        image: RGB, uint8, shape (size, size, 3).
        search: what was found in the file; None where nothing was searched for.
    """

    image: Images
    search: FoundFace | None = None


ReadFace = Callable[[bytes | None], FaceImage]
"""Makes an image of a face of a file's content, None where the file could not be opened; raises
:class:`cldmray.faces.decode.InvalidImageError` where that is not possible."""


class FaceSource(ABC):
    """Source of face images: a listing of its samples and their encoded bytes.

    Subclasses are frozen dataclasses whose fields are their settings, so that a source can be
    written in YAML, hashed and sent to any worker.

    Attributes:
        name: enters every sample id; two sources in one audit need two names.
        crop: left, top, right, bottom in pixels of the upright image, a square; None takes the
            largest central square of each image.
        size: side of the square output image in pixels.
        max_pixels: files of larger images are rejected before they are decoded.
        synthetic: whether its people do not exist, so that a report may show their faces.
    """

    synthetic: ClassVar[bool] = False
    name: str
    crop: list[int] | None
    size: int
    max_pixels: int = MAX_PIXELS

    @abstractmethod
    def listing(self) -> pa.Table:
        """All samples, schema ``records.LISTING``, sorted by ``sample_id``, which is unique.

        The ids depend on the source's name, the identity and the image's name only: neither the
        root nor the file's extension counts, so a folder of anonymized copies yields the same.

        Raises:
            BadInputError: the root is missing, empty or laid out in another way.
        """

    @abstractmethod
    def read(self, locations: Sequence[str]) -> list[bytes | None]:
        """Encoded file content of each location; None where it cannot be opened (any more)."""

    def reading_blocks(self, listing: pa.Table, rows: int) -> list[pa.Table]:
        """A listing cut into the blocks that :meth:`read` gets, of about ``rows`` rows.

        A source whose files are read faster in another order has blocks of another order.

        Args:
            listing: schema ``records.LISTING``, and further columns.

        Returns:
            At least one block, of which one may be empty; each row is in one of them.
        """
        starts = range(0, max(listing.num_rows, 1), rows)
        return [listing.slice(start, rows).combine_chunks() for start in starts]

    @property
    def folder(self) -> str | None:
        """Where its locations begin: a local path or URI; None: nowhere that can be compared."""
        root: str | None = getattr(self, "root", None)
        return root

    @property
    def finds_faces(self) -> bool:
        """Whether faces are searched for and brought into place; else images are cropped."""
        return False

    @property
    def face_crop(self) -> Shares | None:
        """ArcFace's square in its images: left, top, right, bottom as shares; None: unknown."""
        return None

    def check(self) -> None:  # noqa: B027
        """Find out before any work starts whether everything that it needs is installed.

        Raises:
            MissingDependencyError: it is not; the message says what to do.
        """

    def open(self) -> ReadFace:
        """Load what is needed, and return the function that makes faces of files' contents."""
        return lambda content: FaceImage(decode(content, self.crop, self.size, self.max_pixels))

    def groups(self) -> pa.Table | None:
        """Groups of its people, such as sex or age; None where the source has none.

        Returns:
            ``identity``, each once, and one text column an attribute; null where a person is in
            none of its groups. The table may lack people of the listing and may contain others.

        Raises:
            BadInputError: a file of groups cannot be understood; the message names it.
        """
        return None


@checked_dataclass(kw_only=True)
class ImageFileSource(FaceSource):
    """Source of image files, which may be whole scenes: faces are found and brought into place.

    Attributes:
        align: ``landmarks`` finds the face of each image, the largest and most central one, and
            brings its five landmarks to ArcFace's template; an image without a face is rejected.
            ``none`` takes the crop. ``auto`` is ``none`` for a source whose images are aligned
            already, and where ``crop`` is set, else ``landmarks``.
        margin: what is shown around ArcFace's square on each side, in sides of it; 0.1 keeps the
            chin and the hairline, 0.3 the whole head.
        min_face: side in pixels of a face in its file, below which the report warns.
        max_pixels: files of larger images are rejected before they are decoded, since each pixel
            takes several bytes of memory then; cameras take up to 150 million.
        detector: finds faces and their landmarks.
    """

    aligned_already: ClassVar[bool] = False
    align: Align = "auto"
    margin: Annotated[float, Field(ge=0, le=2)] = 0.1
    min_face: Annotated[int, Field(ge=0)] = field(default=40, metadata=EXCLUDED_FROM_KEY)
    max_pixels: Annotated[int, Field(ge=1, le=MOST_PIXELS)] = MAX_PIXELS
    detector: FaceDetector = field(default_factory=YuNet, metadata=EXCLUDED_FROM_KEY)

    def version(self) -> str:
        """Fingerprint of the detector and its weights, where it is used."""
        return fingerprint(canonicalize(self.detector)) if self.finds_faces else ""

    @property
    def finds_faces(self) -> bool:
        if self.align == "auto":
            return not self.aligned_already and self.crop is None
        return self.align == "landmarks"

    @property
    def face_crop(self) -> Shares | None:
        return tight_crop(self.margin) if self.finds_faces else None

    def check(self) -> None:
        if not self.finds_faces:
            return
        try:
            self.detector.version()
        except CldmrayError as error:
            raise type(error)(
                f"faces cannot be searched for: {error}; or set align=none of this source, for "
                "images that are aligned already"
            ) from error

    def open(self) -> ReadFace:
        if not self.finds_faces:
            return super().open()
        find = self.detector.open()
        return lambda content: self._face(decode_whole(content, self.max_pixels), find)

    def _face(self, scene: Images, find: FindFaces) -> FaceImage:
        face = find_face(scene, find)
        if face is None:
            raise InvalidImageError(NO_FACE)
        return FaceImage(self.cut(scene, face), face)

    def cut(self, scene: Images, face: FoundFace) -> Images:
        """The face as this source gives it, uint8, shape (size, size, 3).

        Args:
            scene: RGB, uint8, shape (h, w, 3).
            face: that it shows.
        """
        matrix = similarity(face.landmarks, framed_template(self.margin, self.size))
        return warp(*needed_part(scene, matrix, self.size), self.size)


class Sample(NamedTuple):
    """One image before it has an id; ``name`` is ``identity/image``."""

    identity: str
    name: str
    location: str
    version: str


def listing_table(source: str, samples: Iterable[Sample], notes: Sequence[str] = ()) -> pa.Table:
    """The listing of a source's samples, sorted by sample id.

    Args:
        source: its name.
        samples: in any order.
        notes: on what was found and left out, for :func:`cldmray.faces.records.listing_notes`.

    Raises:
        BadInputError: two samples share one name, or one is there twice; the message gives the
            locations, hashed.
    """
    by_id: dict[str, Sample] = {}
    for sample in samples:
        key = hashing.sample_id(source, sample.name)
        if key in by_id:
            raise BadInputError(f"source {source!r}: {_clash(by_id[key], sample)}")
        by_id[key] = sample
    ids = sorted(by_id)
    rows = [by_id[key] for key in ids]
    columns = [
        ids,
        [row.identity for row in rows],
        [row.location for row in rows],
        [row.version for row in rows],
    ]
    schema = LISTING.with_metadata({NOTES: json.dumps(list(notes))}) if notes else LISTING
    return pa.Table.from_arrays(
        [pa.array(column, pa.string()) for column in columns], schema=schema
    )


def _clash(first: Sample, second: Sample) -> str:
    """What is wrong with two samples of one name, and the cure."""
    both = [hashing.safe_location(sample.location) for sample in (first, second)]
    fault, cure = f"{both[0]} and {both[1]} have the same sample name,", "rename one of the files"
    if first.location == second.location:
        fault, cure = f"{both[0]} is listed twice as an image", "remove one of the rows"
    return (
        f"{fault} of identity {hashing.identity_hash(second.identity)} (names of people are "
        f"hashed, see cldmray.hashing.safe_location): {cure}"
    )


def named_samples(images: Sequence[Sample]) -> list[Sample]:
    """Samples whose ``name`` is the image's file name, as :func:`listing_table` takes them.

    >>> named_samples([Sample("Ada", "1.png", "Ada/1.png", "1")])[0].name
    'Ada/1'
    """
    names = sample_names([(image.identity, image.name) for image in images])
    return [image._replace(name=name) for image, name in zip(images, names, strict=True)]


def sample_names(images: Sequence[tuple[str, str]]) -> list[str]:
    """Names ``identity/stem`` of (identity, file name) pairs, in their order.

    Where two images of one identity would share a name, all of these keep their extension.
    """
    full = [f"{identity}/{image}" for identity, image in images]
    names = [splitext(name)[0] for name in full]
    while True:
        counts = Counter(names)
        clashes = [i for i, name in enumerate(names) if counts[name] > 1 and name != full[i]]
        if not clashes:
            return names
        for i in clashes:
            names[i] = full[i]

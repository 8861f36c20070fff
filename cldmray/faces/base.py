"""What every source of faces offers: a listing of its samples and their encoded bytes."""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from posixpath import splitext
from typing import Annotated, ClassVar, NamedTuple

import pyarrow as pa
from pydantic import AfterValidator, Field

from cldmray import hashing
from cldmray.errors import BadInputError
from cldmray.faces.records import LISTING, NOTES


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


class FaceSource(ABC):
    """Source of face images: a listing of its samples and their encoded bytes.

    Subclasses are frozen dataclasses whose fields are their settings, so that a source can be
    written in YAML, hashed and sent to any worker.

    Attributes:
        name: enters every sample id; two sources in one audit need two names.
        crop: left, top, right, bottom in pixels of the upright image, a square; None takes the
            largest central square of each image.
        size: side of the square output image in pixels.
        synthetic: whether its people do not exist, so that a report may show their faces.
    """

    synthetic: ClassVar[bool] = False
    name: str
    crop: list[int] | None
    size: int

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

    def groups(self) -> pa.Table | None:
        """Groups of its people, such as sex or age; None where the source has none.

        Returns:
            ``identity``, each once, and one text column an attribute; null where a person is in
            none of its groups. The table may lack people of the listing and may contain others.

        Raises:
            BadInputError: a file of groups cannot be understood; the message names it.
        """
        return None


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
        BadInputError: two samples share one name; the message gives both locations, hashed.
    """
    by_id: dict[str, Sample] = {}
    for sample in samples:
        key = hashing.sample_id(source, sample.name)
        if key in by_id:
            both = [hashing.safe_location(other.location) for other in (by_id[key], sample)]
            raise BadInputError(
                f"source {source!r}: {both[0]} and {both[1]} have the same sample name, "
                f"of identity {hashing.identity_hash(sample.identity)} (names of people are "
                "hashed, see cldmray.hashing.safe_location): rename one of the files"
            )
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

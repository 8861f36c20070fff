"""Procedurally drawn people: faces without a data set, a licence or anybody's privacy."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from cldmray.faces.records import encode_picture
from cldmray.faces.source import FaceSource, Sample, check_common, listing_table
from cldmray.hashing import fingerprint

DRAWING = 1
"""Raised whenever the same numbers give another picture, so that nothing old is reused."""


@dataclass(frozen=True)
class DrawnFaces(FaceSource):
    """Soft-shaded cartoon portraits; each picture depends on (seed, identity, photo) alone.

    Attributes:
        people: how many identities.
        photos_per_person: how many photos each of them has.
        seed: another seed draws other people.
        name, size: see :class:`FaceSource`.
        crop: always None.
    """

    people: int
    photos_per_person: int
    seed: int = 0
    name: str = "drawn"
    size: int = 64
    crop: list[int] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        check_common(self.name, self.size)
        for key in ("people", "photos_per_person"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}: must be at least 1, got {getattr(self, key)}")

    def listing(self) -> pa.Table:
        """See :meth:`FaceSource.listing`; a location is ``identity_index/photo_index``."""
        version = fingerprint([DRAWING, self.seed, self.size])
        return listing_table(
            self.name,
            (
                Sample(f"person_{i:05d}", f"person_{i:05d}/{j:04d}", f"{i}/{j}", version)
                for i in range(self.people)
                for j in range(self.photos_per_person)
            ),
        )

    def read(self, locations: Sequence[str]) -> list[bytes | None]:
        """Pictures as PNG files, (size, size) pixels; None for a location that is not listed."""
        return [self._picture(location) for location in locations]

    def _picture(self, location: str) -> bytes | None:
        from cldmray.faces.drawing.person import person, shot
        from cldmray.faces.drawing.portrait import portrait

        first, _, second = location.partition("/")
        if not (first.isdecimal() and second.isdecimal()):
            return None
        identity, photo = int(first), int(second)
        if identity >= self.people or photo >= self.photos_per_person:
            return None
        looks, circumstances = person(self.seed, identity), shot(self.seed, identity, photo)
        return encode_picture(portrait(looks, circumstances, self.size))

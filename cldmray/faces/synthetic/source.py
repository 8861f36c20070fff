"""Synthetic faces: a source without data set, licence or anybody's privacy at risk."""

from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from cldmray.faces.base import FaceSource
from cldmray.faces.records import LISTING, encode_image
from cldmray.faces.synthetic.identity import groups
from cldmray.faces.synthetic.scene import LARGEST
from cldmray.hashing import fingerprint, sample_id
from cldmray.settings import NonEmpty, checked_dataclass

RENDERING = 1
"""Raised whenever the same numbers give another image, so that nothing old is reused."""
GROUPS = pa.schema(
    [
        pa.field("identity", pa.string(), nullable=False),
        pa.field("sex", pa.string(), nullable=False),
        pa.field("age", pa.string(), nullable=False),
        pa.field("skin_tone", pa.string(), nullable=False),
    ]
)
"""Groups of each identity, see :func:`cldmray.faces.synthetic.identity.groups`."""


@checked_dataclass
class SyntheticFaces(FaceSource):
    """Images of modelled heads; each image depends on (seed, identity, image) alone.

    Identities are balanced over sex, age and skin tone: each run of 36 holds every combination
    once.

    Attributes:
        n_identities: how many identities.
        images_per_identity: how many images each of them has.
        seed: another seed makes other people, and names them otherwise.
        name, size: see :class:`FaceSource`.
        crop: always None.

    >>> source = SyntheticFaces(n_identities=2, images_per_identity=3)
    >>> source.listing().num_rows
    6
    >>> source.read(["0/0"])[0][:4]
    b'\\x89PNG'
    """

    n_identities: Annotated[int, Field(ge=1)]
    images_per_identity: Annotated[int, Field(ge=1)]
    seed: int = 0
    synthetic: ClassVar[bool] = True
    name: NonEmpty = "synthetic"
    size: Annotated[int, Field(ge=8, le=LARGEST)] = 128
    crop: list[int] | None = field(default=None, init=False)

    def listing(self) -> pa.Table:
        """See :meth:`FaceSource.listing`; a location is ``identity_index/image_index``."""
        n_identities, n_images = self.n_identities, self.images_per_identity
        ids = pa.array(
            (
                sample_id(self.name, f"{_name(self.seed, i)}/{j:04d}")
                for i in range(n_identities)
                for j in range(n_images)
            ),
            pa.string(),
        )
        order = pc.sort_indices(ids)
        identities, images = np.divmod(order.to_numpy(), n_images)
        names = pa.array((_name(self.seed, i) for i in range(n_identities)), pa.string())
        location = pc.binary_join_element_wise(
            pa.array(identities).cast(pa.string()), pa.array(images).cast(pa.string()), "/"
        )
        version = pa.repeat(fingerprint([RENDERING, self.seed, self.size]), len(ids))
        columns = [ids.take(order), names.take(pa.array(identities)), location, version]
        return pa.Table.from_arrays(columns, schema=LISTING)

    def read(self, locations: Sequence[str]) -> list[bytes | None]:
        """Images as PNG files, (size, size) pixels; None for a location that is not listed."""
        images = {location: self._image(location) for location in sorted(set(locations))}
        return [images[location] for location in locations]

    def groups(self) -> pa.Table:
        """See :func:`attributes_table`."""
        return attributes_table(self)

    def _image(self, location: str) -> bytes | None:
        from cldmray.faces.synthetic.scene import render_image

        first, _, second = location.partition("/")
        if not (first.isdecimal() and second.isdecimal()):
            return None
        identity, index = int(first), int(second)
        if identity >= self.n_identities or index >= self.images_per_identity:
            return None
        return encode_image(render_image(self.seed, identity, index, self.size))


def attributes_table(source: SyntheticFaces) -> pa.Table:
    """Sex, age and skin tone of each identity of a source, in the order of their indices.

    Returns:
        schema :data:`GROUPS`, one row an identity.
    """
    rows = [
        {"identity": _name(source.seed, i), **groups(source.seed, i)}
        for i in range(source.n_identities)
    ]
    return pa.Table.from_pylist(rows, schema=GROUPS)


def _name(seed: int, identity: int) -> str:
    return f"person_{seed}_{identity:06d}"

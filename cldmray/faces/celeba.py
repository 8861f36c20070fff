"""CelebA, aligned and cropped (Liu, Luo, Wang, Tang, 2015)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from cldmray.errors import BadInputError
from cldmray.faces.files import list_folder, read_files
from cldmray.faces.source import (
    FaceSource,
    Sample,
    check_common,
    checked_crop,
    listing_table,
    sample_names,
)
from cldmray.faces.tables import read_pairs
from cldmray.storage import join

PHOTOS = "img_align_celeba"
IDENTITIES = "identity_CelebA.txt"
LAYOUT = f"CelebA's folder {PHOTOS} and file {IDENTITIES}"


@dataclass(frozen=True)
class CelebaFaces(FaceSource):
    """CelebA's photos, 178x218 pixels, with its identity file.

    Photos that stand in the identity file but not in the folder are left out, so that a part of
    the data set can be audited.

    Attributes:
        root: local path or URI of the folder with ``img_align_celeba/`` and
            ``identity_CelebA.txt`` (lines ``000001.jpg 2880``).
        name, size: see :class:`FaceSource`.
        crop: the default is the central 128x128 pixels.
    """

    root: str
    name: str = "celeba"
    crop: list[int] | None = field(default_factory=lambda: [25, 45, 153, 173])
    size: int = 64

    def __post_init__(self) -> None:
        check_common(self.name, self.size)
        object.__setattr__(self, "crop", checked_crop(self.crop))

    def listing(self) -> pa.Table:
        identities = read_pairs(join(self.root, IDENTITIES), "faces.root", LAYOUT)
        files = [
            file
            for file in list_folder(join(self.root, PHOTOS), LAYOUT)
            if file.label in identities
        ]
        if not files:
            raise BadInputError(
                f"faces.root: no photo named in {IDENTITIES} under {self.root}; expected {LAYOUT}"
            )
        names = sample_names([(identities[file.label], file.label) for file in files])
        return listing_table(
            self.name,
            (
                Sample(identities[file.label], name, f"{PHOTOS}/{file.location}", file.version)
                for file, name in zip(files, names, strict=True)
            ),
        )

    def read(self, locations: Sequence[str]) -> list[bytes | None]:
        return read_files(self.root, locations)

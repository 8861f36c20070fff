"""CelebA, aligned and cropped (Liu, Luo, Wang, Tang, 2015)."""

from collections.abc import Iterator, Sequence
from dataclasses import field

import pyarrow as pa

from cldmray import storage
from cldmray.errors import BadInputError
from cldmray.faces.base import (
    Crop,
    FaceSource,
    Sample,
    Side,
    listing_table,
    sample_names,
)
from cldmray.faces.sources.files import list_folder, read_files, read_lines, read_pairs
from cldmray.faces.sources.groups import majority
from cldmray.settings import NonEmpty, checked_dataclass
from cldmray.storage import join

IMAGES = "img_align_celeba"
IDENTITIES = "identity_CelebA.txt"
LAYOUT = f"CelebA's folder {IMAGES} and file {IDENTITIES}"

ATTRIBUTES = "list_attr_celeba.txt"
GROUPS = {"Male": ("sex", "male", "female"), "Young": ("age", "young", "not young")}
"""Column of the attribute file: our name of it, and those of its values 1 and -1."""


@checked_dataclass
class CelebaFaces(FaceSource):
    """CelebA's images, 178x218 pixels, with its identity file.

    Images that stand in the identity file but not in the folder are left out, so that a part of
    the data set can be audited.

    Attributes:
        root: local path or URI of the folder with ``img_align_celeba/`` and
            ``identity_CelebA.txt`` (lines ``000001.jpg 2880``). If it holds
            ``list_attr_celeba.txt``, the risk of groups by sex and age is shown.
        name, size: see :class:`FaceSource`.
        crop: the default is the central 128x128 pixels.
    """

    root: str
    name: NonEmpty = "celeba"
    crop: Crop | None = field(default_factory=lambda: [25, 45, 153, 173])
    size: Side = 64

    def listing(self) -> pa.Table:
        identities = read_pairs(join(self.root, IDENTITIES), "faces.root", LAYOUT)
        files = [
            file
            for file in list_folder(join(self.root, IMAGES), LAYOUT)
            if file.label in identities
        ]
        if not files:
            raise BadInputError(
                f"faces.root: no image named in {IDENTITIES} under {self.root}; expected {LAYOUT}"
            )
        names = sample_names([(identities[file.label], file.label) for file in files])
        return listing_table(
            self.name,
            (
                Sample(identities[file.label], name, f"{IMAGES}/{file.location}", file.version)
                for file, name in zip(files, names, strict=True)
            ),
        )

    def read(self, locations: Sequence[str]) -> list[bytes | None]:
        return read_files(self.root, locations)

    def groups(self) -> pa.Table | None:
        """Sex and age of each identity, as most of its images have it; see `FaceSource.groups`."""
        uri = join(self.root, ATTRIBUTES)
        if not storage.exists(uri):
            return None
        identities = read_pairs(join(self.root, IDENTITIES), "faces.root", LAYOUT)
        votes: dict[str, list[tuple[str, bool]]] = {name: [] for name in GROUPS}
        for image, values in _attributes(uri):
            if image in identities:
                for name, value in values.items():
                    votes[name].append((identities[image], value))
        rated = sorted({identity for identity, _ in votes["Male"]})
        columns = {"identity": pa.array(rated, pa.string())}
        for name, (attribute, yes, no) in GROUPS.items():
            majorities = majority(votes[name], yes, no)
            columns[attribute] = pa.array([majorities[identity] for identity in rated], pa.string())
        return pa.table(columns)


def _attributes(uri: str) -> Iterator[tuple[str, dict[str, bool]]]:
    """Each image's name and what it says of the attributes in ``GROUPS``."""
    expected = "the number of images, the attributes' names, and a line of 1 and -1 for each image"
    lines = read_lines(uri, "faces.root", expected)
    names = lines[1].split() if len(lines) > 1 else []
    if not set(GROUPS) <= set(names):
        raise BadInputError(
            f"faces.root: {uri} does not name {', '.join(GROUPS)}; expected {expected}"
        )
    places = {name: names.index(name) for name in GROUPS}
    for number, line in enumerate(lines[2:], start=3):
        image, *values = line.split()
        if len(values) != len(names) or not set(values) <= {"1", "-1"}:
            raise BadInputError(f"faces.root: {uri}: bad line {number}; expected {expected}")
        yield image, {name: values[place] == "1" for name, place in places.items()}

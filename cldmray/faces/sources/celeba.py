"""CelebA, aligned and cropped (Liu, Luo, Wang, Tang, 2015)."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import field
from posixpath import splitext
from typing import ClassVar

import pyarrow as pa

from cldmray import storage
from cldmray.errors import BadInputError
from cldmray.faces.base import Crop, ImageFileSource, Sample, Side, listing_table, named_samples
from cldmray.faces.sources.companions import without_companions
from cldmray.faces.sources.files import list_folder, read_files, read_lines, read_pairs
from cldmray.faces.sources.groups import majority
from cldmray.settings import NonEmpty, checked_dataclass
from cldmray.storage import join

IMAGES = "img_align_celeba"
IDENTITIES = "identity_CelebA.txt"
LAYOUT = f"CelebA's folder {IMAGES} and file {IDENTITIES}"

NUMBERED = re.compile(rf"(?:^|/){IMAGES}(?:_png)?/\d+[.]\w+$")
"""Paths of CelebA's images, of which none names a person."""
ROOTS = ("", "celeba/", "CelebA/")
"""Where the data set may lie below the root: torchvision and Google Drive make a folder of it."""
IMAGE_FOLDERS = (
    f"{IMAGES}/{IMAGES}",  # Kaggle's copy
    IMAGES,
    f"Img/{IMAGES}",
    f"{IMAGES}_png",
    f"Img/{IMAGES}_png",
)
IDENTITY_FILES = (IDENTITIES, f"Anno/{IDENTITIES}", "identity_CelebA.csv")
ATTRIBUTE_FILES = ("list_attr_celeba.txt", "Anno/list_attr_celeba.txt", "list_attr_celeba.csv")
GROUPS = {"Male": ("sex", "male", "female"), "Young": ("age", "young", "not young")}
"""Column of the attribute file: our name of it, and those of its values 1 and -1."""


@checked_dataclass
class CelebaFaces(ImageFileSource):
    """CelebA's images, 178x218 pixels, with its identity file.

    The folders and files of Google Drive (``Img``, ``Anno``), of Kaggle's copy (CSV files) and of
    torchvision are found. Images are told by their number, so that JPEG and PNG files do. Images
    that stand in the identity file but not in the folder are left out, so that a part of the data
    set can be audited.

    Attributes:
        root: local path or URI of the folder with ``img_align_celeba/`` and
            ``identity_CelebA.txt`` (lines ``000001.jpg 2880``). If it holds
            ``list_attr_celeba``, the risk of groups by sex and age is shown.
        name, size: see :class:`FaceSource`.
        crop: the default is the central 128x128 pixels.
    """

    root: str
    aligned_already: ClassVar[bool] = True
    name: NonEmpty = "celeba"
    crop: Crop | None = field(default_factory=lambda: [25, 45, 153, 173])
    size: Side = 128

    def listing(self) -> pa.Table:
        identities = self._identities()
        folder = self._find(IMAGE_FOLDERS) or IMAGES
        listed, notes = without_companions(list_folder(join(self.root, folder), LAYOUT))
        files = [file for file in listed if _number(file.label) in identities]
        if not files:
            raise BadInputError(
                f"faces.root: no image named in {IDENTITIES} under {self.root}; expected {LAYOUT}"
            )
        if unnamed := len(listed) - len(files):
            notes.append(f"{unnamed} images are left out: {IDENTITIES} has no line for them.")
        images = [
            Sample(
                identities[_number(file.label)],
                file.label,
                f"{folder}/{file.location}",
                file.version,
            )
            for file in files
        ]
        return listing_table(self.name, named_samples(images), notes)

    def read(self, locations: Sequence[str]) -> list[bytes | None]:
        return read_files(self.root, locations)

    def groups(self) -> pa.Table | None:
        """Sex and age of each identity, as most of its images have it; see `FaceSource.groups`."""
        file = self._find(ATTRIBUTE_FILES)
        if file is None:
            return None
        identities = self._identities()
        owners: list[str] = []
        attributes: dict[str, list[str]] = {name: [] for name in GROUPS}
        for image, values in _attributes(join(self.root, file)):
            identity = identities.get(_number(image))
            if identity is not None:
                owners.append(identity)
                for name, (_, yes, no) in GROUPS.items():
                    attributes[name].append(yes if values[name] else no)
        rated = sorted(set(owners))
        columns = {"identity": pa.array(rated, pa.string())}
        for name, (attribute, _, _) in GROUPS.items():
            majorities = majority(owners, attributes[name])
            columns[attribute] = pa.array([majorities[identity] for identity in rated], pa.string())
        return pa.table(columns)

    def _find(self, candidates: Sequence[str]) -> str | None:
        """The first of some paths below the root that is there."""
        paths = [f"{place}{candidate}" for place in ROOTS for candidate in candidates]
        return next((path for path in paths if storage.exists(join(self.root, path))), None)

    def _identities(self) -> dict[str, str]:
        """Identity of each image, by its number.

        Raises:
            BadInputError: the file is missing or cannot be understood.
        """
        file = self._find(IDENTITY_FILES)
        if file is None:
            raise BadInputError(
                f"faces.root: no {IDENTITIES} in {self.root}; expected {LAYOUT} (Kaggle's copy "
                "comes without that file: take it from Anno/ of the data set's Google Drive)"
            )
        pairs = read_pairs(join(self.root, file), "faces.root", LAYOUT)
        return {_number(image): identity for image, identity in pairs.items()}


def is_celeba(root: str) -> bool:
    """Whether a folder holds CelebA's identities and images, wherever a copy has them."""
    source = CelebaFaces(root)
    return None not in (source._find(IDENTITY_FILES), source._find(IMAGE_FOLDERS))


def refuse_unnamed(root: str, images: Sequence[str]) -> None:
    """Refuse a copy of CelebA without the file of identities: its images name nobody.

    Args:
        root: folder of the copy.
        images: paths below it.

    Raises:
        BadInputError: it is such a copy.
    """
    source = CelebaFaces(root)
    if any(map(NUMBERED.search, images)) and source._find(IMAGE_FOLDERS):
        source._identities()


def _number(image: str) -> str:
    """What tells an image whatever its format: ``000001`` of ``000001.jpg``."""
    return splitext(image)[0]


def _attributes(uri: str) -> Iterator[tuple[str, dict[str, bool]]]:
    """Each image's name and what it says of the attributes in ``GROUPS``."""
    expected = "the number of images, the attributes' names, and a line of 1 and -1 for each image"
    lines = [line.replace(",", " ") for line in read_lines(uri, "faces.root", expected)]
    head = 0 if uri.endswith(".csv") else 1
    names = lines[head].split()[1 - head :] if len(lines) > head else []
    if not set(GROUPS) <= set(names):
        raise BadInputError(
            f"faces.root: {uri} does not name {', '.join(GROUPS)}; expected {expected}"
        )
    places = {name: names.index(name) for name in GROUPS}
    for number, line in enumerate(lines[head + 1 :], start=head + 2):
        image, *values = line.split()
        if len(values) != len(names) or not set(values) <= {"1", "-1"}:
            raise BadInputError(f"faces.root: {uri}: bad line {number}; expected {expected}")
        yield image, {name: values[place] == "1" for name, place in places.items()}

"""Folder of images with one sub-folder a person, or with people told by the files' paths."""

import re
from collections.abc import Sequence
from dataclasses import field
from typing import Annotated

import pyarrow as pa
from pydantic import AfterValidator

from cldmray.errors import BadInputError
from cldmray.faces.base import Crop, ImageFileSource, Sample, Side, listing_table, named_samples
from cldmray.faces.sources.companions import without_companions
from cldmray.faces.sources.files import ListedFile, list_folder, read_files
from cldmray.faces.sources.groups import read_groups
from cldmray.hashing import EXCLUDED_FROM_KEY
from cldmray.settings import NonEmpty, checked_dataclass

LAYOUT = "one sub-folder a person, each with that person's images"
PARTS = {"train", "training", "test", "testing", "val", "valid", "validation", "eval", "dev"}
"""Folders into which data sets are divided, in lower case: no names of people."""


def _pattern(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from error
    if groups < 1:
        raise ValueError("must hold the identity in parentheses, as '([^/]+)/.*' does")
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]
"""A regular expression with at least one group."""


@checked_dataclass
class FolderFaces(ImageFileSource):
    """``root/<identity>/<image>``; the sub-folder's name is the identity.

    Every file that is not hidden and no known companion of images is listed, whatever its
    extension (:mod:`cldmray.faces.sources.companions`). Images in deeper folders belong to the
    first one. A folder around all people, and folders ``train``, ``test`` and the like, are looked
    through: then the folders in them are the people. Files directly in those and in the root are
    left out and counted in a note.

    Attributes:
        root: local path, ``s3://`` or ``gs://`` URI.
        name, crop, size: see :class:`FaceSource`; the others, :class:`ImageFileSource`.
        groups_file: CSV or Parquet file with the column ``identity`` and one column an attribute,
            such as ``sex``; it changes no image, only which groups get rows of their own.
        identity_pattern: regular expression for a file's path below the root, whose first group is
            the identity: ``'(.*)_[0-9]+'`` for ``Ann_1.jpg``, ``'(.*)[.]'`` where each file is
            a person of its own. Other files are left out. None: the sub-folder names the person.

    >>> import tempfile
    >>> from pathlib import Path
    >>> root = Path(tempfile.mkdtemp())
    >>> (root / "Ada").mkdir()
    >>> _ = (root / "Ada" / "1.png").write_bytes(b"any bytes")
    >>> FolderFaces(str(root)).listing()["location"].to_pylist()
    ['Ada/1.png']
    """

    root: str
    name: NonEmpty = "folder"
    crop: Crop | None = None
    size: Side = 128
    groups_file: str | None = field(default=None, metadata=EXCLUDED_FROM_KEY)
    identity_pattern: Pattern | None = None

    def listing(self) -> pa.Table:
        samples, notes = folder_samples(self.root, self.identity_pattern)
        return listing_table(self.name, samples, notes)

    def read(self, locations: Sequence[str]) -> list[bytes | None]:
        return read_files(self.root, locations)

    def groups(self) -> pa.Table | None:
        """See :meth:`FaceSource.groups`."""
        return read_groups(self.groups_file)


def folder_samples(root: str, pattern: str | None = None) -> tuple[list[Sample], list[str]]:
    """Samples of a folder with one sub-folder a person, and notes on what was left out.

    Args:
        root: local path or URI.
        pattern: see :class:`FolderFaces`.

    Raises:
        BadInputError: the folder is missing or has no image in a sub-folder, or no file matches
            the pattern.
    """
    files, notes = without_companions(list_folder(root, LAYOUT))
    if pattern is not None:
        images, more = _by_pattern(files, pattern)
    else:
        images, more = _by_folder(files)
    if not images:
        raise BadInputError(
            f"faces.root: no images in sub-folders of {root}; expected {LAYOUT}; where the files' "
            "names tell the people set faces.identity_pattern"
            if pattern is None
            else f"faces.identity_pattern: {pattern!r} matches no file below {root}"
        )
    return named_samples(images), [*notes, *more]


def _by_folder(files: list[ListedFile]) -> tuple[list[Sample], list[str]]:
    """Files in sub-folders, named within them, and notes on folders around them and other files."""
    deep = [file for file in files if "/" in file.label]
    depth, parted = wrappers([file.label for file in deep])
    images = []
    for file in deep:
        parts = file.label.split("/")
        if len(parts) > depth + 1:
            part = parts[depth - 1 : depth] if parted else []
            image = "/".join([*part, *parts[depth + 1 :]])
            images.append(Sample(parts[depth], image, file.location, file.version))
    notes = []
    if depth:
        above = "parts of a data set (train, test)" if parted else "around all people"
        notes.append(
            f"The people are the folders at depth {depth + 1} below the root: those above are "
            f"{above}."
        )
    if len(images) < len(files):
        notes.append(
            f"Files outside of the people's folders, left out: {len(files) - len(images)}."
        )
    return images, notes


def wrappers(paths: Sequence[str]) -> tuple[int, bool]:
    """How many levels of folders stand above those that name people.

    A level is such a one if it is one folder that holds folders, or if all its folders are called
    ``train``, ``test`` or the like. The folders below must be several. Files directly in the level
    are strays, such as a cover, if they are fewer than all folders with files below it.

    Args:
        paths: of the files in sub-folders, from the root on.

    Returns:
        The number of levels, and whether the last of them divides the data set into parts.

    >>> wrappers(["lfw/Ann/1.jpg", "lfw/Bob/1.jpg"]), wrappers(["Ann/1.jpg", "Bob/video/1.jpg"])
    ((1, False), (0, False))
    >>> wrappers(["VGG/train/n1/1.jpg", "VGG/test/n2/1.jpg"])
    (2, True)
    >>> wrappers(["lfw/cover.jpg", "lfw/Ann/1.jpg", "lfw/Bob/1.jpg"])
    (1, False)
    """
    folders = [path.split("/")[:-1] for path in paths]
    depth, parted = 0, False
    while True:
        deeper = [parts for parts in folders if len(parts) > depth + 1]
        if len(folders) - len(deeper) >= len({"/".join(parts) for parts in deeper}):
            break
        here = {parts[depth].lower() for parts in folders}
        if len(here) > 1 and (parted or not here <= PARTS):
            return depth, parted
        depth, parted, folders = depth + 1, parted or len(here) > 1, deeper
    several = len({parts[depth] for parts in folders}) > 1
    return (depth, parted) if several or parted else (0, False)


def _by_pattern(files: list[ListedFile], pattern: str) -> tuple[list[Sample], list[str]]:
    """Files that match, named below a folder of their identity's name, and how many do not."""
    images = []
    for file in files:
        match = re.match(pattern, file.label)
        if match and match[1]:
            image = file.label.removeprefix(f"{match[1]}/")
            images.append(Sample(match[1], image, file.location, file.version))
    left = len(files) - len(images)
    return images, [f"Files that do not match faces.identity_pattern: {left}."] if left else []

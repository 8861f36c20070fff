"""Images that somebody anonymized elsewhere, with any tool."""

import os
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import cached_property
from itertools import chain, pairwise
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pyarrow import fs

from cldmray import hashing, storage
from cldmray.anonymizers.base import AnonymizeFunction, Anonymizer, Batch
from cldmray.arrays import Images
from cldmray.detection.alignment import fitted
from cldmray.detection.face_search import find_face
from cldmray.detection.yunet import FindFaces
from cldmray.errors import BadInputError
from cldmray.faces.base import FaceSource, ImageFileSource
from cldmray.faces.decode import (
    UPRIGHT,
    InvalidImageError,
    decode_whole,
    orientation,
    square_of,
    turned_by,
)
from cldmray.faces.sources.companions import without_companions
from cldmray.faces.sources.files import (
    ListedFile,
    list_folder,
    local_path,
    normalize_name,
    open_root,
    read_files,
    read_text_table,
    table_path,
)
from cldmray.hashing import fingerprint_rows, safe_location
from cldmray.results.names import Label
from cldmray.settings import NonEmpty, checked_dataclass

LAYOUT = "the anonymized images, in folders and with names as the originals have them"
TABLE = ("original", "anonymized")
"""Columns of a table of files."""
SUFFIX = re.compile(
    r"[-_. ]?(anonymi[sz]ed|anonym|anon|blurred|blur|deidentified|deid|masked|pixelated|redacted)$",
    re.IGNORECASE,
)
"""Endings that tools add to a file's name."""
NUMBERED = re.compile(r"[-_](?:sample)?(\d{1,3})$", re.IGNORECASE)
"""Ending of one of several samples of an image."""

LIKENESS_SIDE = 16

Shows = Literal["auto", "scene", "face"]


class Match(NamedTuple):
    """An anonymized file of a sample; those of one sample are sorted by the number in their name.

    Attributes:
        number: that the name ends in; 0: none.
        location: below the root.
    """

    number: int
    location: str


@checked_dataclass
class Precomputed(Anonymizer):
    """A folder laid out like the originals, with the same file stems.

    A file belongs to the original of the same folder and stem, with any extension or two, with one
    of the endings that tools add (``_anonymized``, ``-blurred``, ``_anon`` ...), or with a number
    behind that where an image has several samples; where names leave that open, as do originals
    ``a.png`` and ``a_1.png`` with several samples each, the folder is refused. Folders around all
    files may differ, and the folder may be the person's. Other names need a table. The folder is
    listed once for each object, which carries its list to the workers when it was already asked
    what it holds.

    Attributes:
        root: local path, ``s3://`` or ``gs://`` URI.
        faces: the source of the originals.
        table: CSV, JSONL or Parquet file with the columns ``original`` and ``anonymized``, paths
            below the roots of either; None: names tell.
        shows: ``scene``: a file shows what the original file shows, at any size, and its face is
            where the original's is. ``face``: it shows the face as it is audited. ``auto``:
            ``face`` for square files of the audited size whose original has another one.
        label: name in tables.
    """

    root: NonEmpty
    faces: FaceSource
    table: str | None = None
    shows: Shows = "auto"
    label: Label = "precomputed"

    @property
    def name(self) -> str:
        return self.label

    def version(self) -> str:
        """Fingerprint of the folder's files that belong to a sample, their sizes and times."""
        versions = {file.location: file.version for file in self._files}
        return fingerprint_rows(
            f"{sample} {match.number} {versions[match.location]}"
            for sample, matches in self._matches.items()
            for match in matches
        )

    def check(self) -> None:
        """See :meth:`Anonymizer.check`.

        Raises:
            BadInputError: the folder is the originals' own or holds some of them, or no file
                belongs to an original; the message shows one of either.
        """
        self._check_folder()
        if self._matches:
            return
        listed = list(self._originals.values())
        example = safe_location(listed[0]) if listed else "nothing"
        raise BadInputError(
            f"{self.name}: none of {len(self._files)} files in {self.root} belongs to one of the "
            f"{len(listed)} originals: one is {safe_location(self._files[0].location)}, and an "
            f"original is {example} (names of people are hashed). Name them like the originals, or "
            "give a table with the columns original and anonymized (table)"
        )

    def _check_folder(self) -> None:
        """Refuse the folder of the originals, and any that holds one of them.

        Raises:
            BadInputError: it is such a folder.
        """
        root = self.faces.folder
        if root is None:
            return
        originals, own = open_root(root), open_root(self.root)
        if originals[0] != own[0]:
            return
        if storage.real_path(*originals) == storage.real_path(*own):
            raise BadInputError(
                f"{self.name}: {self.root} is the folder of the originals ({root}), which "
                "would be audited as they are; move the anonymized images to a folder of their own"
            )
        listed = _real_files(*originals, self._originals.values())
        if not listed.isdisjoint(_real_files(*own, (file.location for file in self._files))):
            raise BadInputError(
                f"{self.name}: {self.root} holds images that are listed as originals ({root}); "
                "move the anonymized images to a folder outside of that of the originals"
            )

    def select(self, sample_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which samples have an image in the folder.

        Raises:
            BadInputError: the folder is missing, empty or laid out in another way, or two of its
                files may be the same image.
        """
        return np.array([sample_id in self._matches for sample_id in sample_ids], bool)

    def usable(self, sample_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which samples' files can all be read; each is decoded for it."""
        return np.array([self._is_readable(sample_id) for sample_id in sample_ids], bool)

    def _is_readable(self, sample_id: str) -> bool:
        files = [match.location for match in self._matches.get(sample_id, ())]
        try:
            for content in read_files(self.root, files):
                decode_whole(content, self.faces.max_pixels)
        except InvalidImageError:
            return False
        return True

    def open(self) -> AnonymizeFunction:
        """List the folder and return the function that reads the images of a batch.

        That function raises BadInputError for a sample without an image, and for a file that
        cannot be read, which it names.
        """
        matches = self._matches
        find = None
        if isinstance(self.faces, ImageFileSource) and self.faces.finds_faces:
            find = self.faces.detector.open()

        def read(batch: Batch) -> Images:
            size = self.faces.size
            images = np.empty((len(batch), size, size, 3), np.uint8)
            samples = batch.samples if batch.samples is not None else np.zeros(len(batch), int)
            locations = [
                self._location(matches, sample_id, int(sample))
                for sample_id, sample in zip(batch.sample_ids, samples, strict=True)
            ]
            originals = self.faces.read([self._originals[key] for key in batch.sample_ids])
            contents = read_files(self.root, locations)
            for position, (original, content) in enumerate(zip(originals, contents, strict=True)):
                sample_id = batch.sample_ids[position]
                with self._blamed(f"the original {safe_location(self._originals[sample_id])}"):
                    scene = decode_whole(original, self.faces.max_pixels)
                file = f"{self.root.rstrip('/')}/{safe_location(locations[position])}"
                with self._blamed(f"{file}, the image of sample {sample_id}"):
                    image = decode_whole(content, self.faces.max_pixels)
                    images[position] = self._face(scene, image, original, content, find)
            return images

        return read

    def _location(self, matches: dict[str, list[Match]], sample_id: str, number: int) -> str:
        """Of the file of a sample; numbers begin again where there are fewer files."""
        own = matches.get(sample_id)
        if own is None:
            raise BadInputError(f"{self.name}: no image of sample {sample_id} in {self.root}")
        return own[number % len(own)].location

    @contextmanager
    def _blamed(self, file: str) -> Iterator[None]:
        """Name a file, as the message shall, in the error of one that is no usable image."""
        try:
            yield
        except InvalidImageError as error:
            raise BadInputError(
                f"{self.name}: {file} (names of people are hashed): {error.reason}"
            ) from error

    def _face(
        self,
        scene: Images,
        image: Images,
        original: bytes | None,
        content: bytes | None,
        find: FindFaces | None,
    ) -> Images:
        """The face in an anonymized image, where it is in the original's scene.

        Args:
            original, content: of the files of either, which tell their orientations.
        """
        faces = self.faces
        height, width = scene.shape[:2]
        is_face = image.shape[:2] == (faces.size, faces.size) != (height, width)
        if self.shows == "face" or (self.shows == "auto" and is_face):
            return square_of(image, None, faces.size)
        if orientation(content) == UPRIGHT:
            image = closer(image, turned_by(image, orientation(original)), scene)
        scaled = fitted(image[None], height, width)[0]
        if find is None or not isinstance(faces, ImageFileSource):
            return square_of(scaled, faces.crop, faces.size)
        face = find_face(scene, find)
        if face is None:
            raise InvalidImageError("no face found in the original")
        return faces.cut(scaled, face)

    @cached_property
    def _files(self) -> list[ListedFile]:
        try:
            files, _ = without_companions(list_folder(self.root, LAYOUT))
        except BadInputError as error:
            raise BadInputError(f"{self.name}: {error}") from error
        if not files:
            raise BadInputError(f"{self.name}: no images in {self.root}; expected {LAYOUT}")
        return files

    @cached_property
    def _originals(self) -> dict[str, str]:
        """Location of each original, by sample id."""
        listing = self.faces.listing()
        columns = listing["sample_id"].to_pylist(), listing["location"].to_pylist()
        return dict(zip(*columns, strict=True))

    @cached_property
    def _places(self) -> dict[str, str]:
        return samples_by_path(self._originals)

    @cached_property
    def _matches(self) -> dict[str, list[Match]]:
        """The files of each sample that has any."""
        if self.table is not None:
            return _sorted_matches(self._by_table(self.table))
        files = self._files
        inner = below_common_folder([file.label for file in files])
        labels = {
            file.location: (file.label, short) for file, short in zip(files, inner, strict=True)
        }
        likeliest = ((place, next(self._fitting(*both), None)) for place, both in labels.items())
        matches = _sorted_matches(
            (fit[0], Match(fit[1], place)) for place, fit in likeliest if fit is not None
        )
        for own in matches.values():
            doubtful = {
                match.location
                for match in own
                if len(own) > 1
                and len({sample for sample, _ in self._fitting(*labels[match.location])}) > 1
            }
            self._check_distinct(own, doubtful)
        return matches

    def _fitting(self, *labels: str) -> Iterator[tuple[str, int]]:
        """Samples whose own name, or original's path, a file's name agrees with, likeliest first.

        Returns:
            Each sample with the number that the file's name gives it.
        """
        for number, name in chain.from_iterable(possible_names(label) for label in labels):
            own = hashing.sample_id(self.faces.name, name)
            sample_id = own if own in self._originals else self._places.get(name)
            if sample_id is not None:
                yield sample_id, number

    def _check_distinct(self, matches: Sequence[Match], doubtful: Set[str]) -> None:
        """Refuse files of a sample of which one may be the original or another image's.

        Args:
            matches: of one sample, sorted.
            doubtful: locations of files whose names fit several samples.

        Raises:
            BadInputError: two files have one number, or one of several files is doubtful.
        """
        for first, second in pairwise(matches):
            if first.number == second.number or {first.location, second.location} & doubtful:
                both = [safe_location(match.location) for match in (first, second)]
                raise BadInputError(
                    f"{self.name}: {both[0]} and {both[1]} in {self.root} may both be the same "
                    "anonymized image of one original (names of people are hashed): remove the "
                    "originals from the folder if they lie in it, or give a table with the columns "
                    "original and anonymized (table)"
                )

    def _by_table(self, table: str) -> Iterator[tuple[str, Match]]:
        samples = {normalize_name(place): sample for sample, place in self._originals.items()}
        there = {file.label: file.location for file in self._files}
        expected = f"the columns {' and '.join(TABLE)}"
        rows = read_text_table(table, f"{self.name}.table", expected)
        if not set(TABLE) <= set(rows.column_names):
            raise BadInputError(f"{self.name}.table: {table} lacks {expected}")
        for number, row in enumerate(rows.select(TABLE).to_pylist()):
            original, anonymized = (table_path(row[column] or "") for column in TABLE)
            if original in samples and anonymized in there:
                yield samples[original], Match(number, there[anonymized])


def _sorted_matches(pairs: Iterable[tuple[str, Match]]) -> dict[str, list[Match]]:
    """Files by sample, both sorted."""
    matches: dict[str, list[Match]] = defaultdict(list)
    for sample_id, match in pairs:
        matches[sample_id].append(match)
    return {sample_id: sorted(own) for sample_id, own in sorted(matches.items())}


def _real_files(filesystem: fs.FileSystem, base: str, locations: Iterable[str]) -> set[str]:
    """Paths of files below a root; those of one folder are looked up once."""
    folders: dict[str, str] = {}
    files = set()
    for location in locations:
        path = f"{base}/{location}"
        if isinstance(filesystem, fs.LocalFileSystem):
            path = os.fsdecode(local_path(base, location))
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = storage.real_path(filesystem, folder)
        files.add(f"{folders[folder]}/{name}")
    return files


def samples_by_path(originals: Mapping[str, str]) -> dict[str, str]:
    """Sample ids by the originals' paths, with and without extension and folders around all.

    A path without its extension that several originals share is left out.

    Args:
        originals: location of each, by sample id.

    >>> samples_by_path({"a": "images/1.jpg", "b": "images/2.jpg"})["2"]
    'b'
    """
    whole = [normalize_name(location) for location in originals.values()]
    samples: dict[str, str] = {}
    for paths in (whole, below_common_folder(whole)):
        stems = [_without_extension(path) for path in paths]
        shared = Counter(stems)
        for sample_id, path, stem in zip(originals, paths, stems, strict=True):
            samples.setdefault(path, sample_id)
            if shared[stem] == 1:
                samples.setdefault(stem, sample_id)
    return samples


def below_common_folder(paths: Sequence[str]) -> list[str]:
    """Paths below the deepest folder that holds all of them.

    >>> below_common_folder(["set/Ann/1.jpg", "set/Bob/1.jpg"])
    ['Ann/1.jpg', 'Bob/1.jpg']
    """
    folder = posixpath.commonpath([posixpath.dirname(path) for path in paths] or [""])
    return [path[len(folder) :].removeprefix("/") if folder else path for path in paths]


def closer(image: Images, turned: Images, original: Images) -> Images:
    """Whichever of two images is more like the original, by what is coarse in them.

    Tools that read pixels without their EXIF orientation write images that lie on their side, and
    drop the orientation.
    """
    if image.shape == turned.shape and (image == turned).all():
        return image
    small = [
        fitted(each[None], LIKENESS_SIDE, LIKENESS_SIDE)[0].astype(np.float64)
        for each in (image, turned, original)
    ]
    errors = [float(np.abs(each - small[2]).mean()) for each in small[:2]]
    return image if errors[0] <= errors[1] else turned


def possible_names(label: str) -> Iterator[tuple[int, str]]:
    """Names of originals that an anonymized file may belong to, the likeliest first.

    Args:
        label: path of the file below its root.

    Returns:
        The number of the sample, 0 where there is none, and the name as in a sample's id.

    >>> [name for _, name in possible_names("Ann/1_anonymized.png")]
    ['Ann/1_anonymized.png', 'Ann/1_anonymized', 'Ann/1']
    >>> list(possible_names("Ann/1.jpg-anon-2.png"))[-2:]
    [(2, 'Ann/1.jpg'), (2, 'Ann/1')]
    """
    seen = set()
    for number, name in _reduced_names(label):
        if name not in seen:
            seen.add(name)
            yield number, name


def _reduced_names(label: str) -> Iterator[tuple[int, str]]:
    stem = _without_extension(label)
    yield 0, label
    for number, whole in ((0, stem), *_numbered(stem)):
        for name in (whole, SUFFIX.sub("", whole)):
            yield number, name
            yield number, _without_extension(name)


def _numbered(stem: str) -> Iterator[tuple[int, str]]:
    """The name without the number that it ends in, and the number; nothing where there is none."""
    ending = NUMBERED.search(stem)
    if ending is not None:
        yield int(ending[1]), stem[: ending.start()]


def _without_extension(name: str) -> str:
    folder, _, file = name.rpartition("/")
    stem, dot, extension = file.rpartition(".")
    is_extension = dot and stem and extension.isalnum() and len(extension) <= 5
    return posixpath.join(folder, stem) if is_extension else name

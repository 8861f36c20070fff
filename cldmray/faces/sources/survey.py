"""What a folder, table or archive of images is, found out before any work.

:func:`recognize` tells the layout, :func:`survey` counts what is there. Neither names anybody.
"""

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from posixpath import splitext
from statistics import median
from typing import Any

import pyarrow as pa
from pyarrow import fs

from cldmray import hashing, storage
from cldmray.detection.face_search import find_face
from cldmray.detection.yunet import FindFaces
from cldmray.errors import BadInputError, MissingDependencyError
from cldmray.faces.base import FaceSource, ImageFileSource
from cldmray.faces.decode import InvalidImageError, decode_whole
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, listing_notes
from cldmray.faces.sources.celeba import CelebaFaces, is_celeba, refuse_unnamed
from cldmray.faces.sources.companions import without_companions
from cldmray.faces.sources.files import IDENTITY_NAMES, list_folder, read_text_table, root_info
from cldmray.faces.sources.folder import FolderFaces
from cldmray.faces.sources.lfw import LfwFaces
from cldmray.faces.sources.parquet import ParquetFaces
from cldmray.faces.sources.table import EXPECTED, PATHS, TableFaces
from cldmray.faces.sources.webdataset import WebDatasetFaces
from cldmray.faces.splits import SplitConfig, assign

SAMPLE = 64
"""Images that are decoded and searched for faces, and files that are held at once."""
MOST_COMPARED = 4_000
"""Files that are read to find equal ones; only files of one size can be equal."""
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
NUMBERED = r"(.+?)[_-]\d+[.]"
"""Names such as ``Ann_0001.jpg``, whose first part is the person."""
EACH_FILE = "(.*)[.]"
"""Every file is a person of its own."""
ENOUGH_IDENTITIES = 20
"""From so many people with five images on, those with fewer are not proposed to be evaluated."""

VALIDATION_FRACTIONS = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
"""Tried one after the other until enough people validate an attacker."""


@dataclass(frozen=True)
class Layout:
    """A layout, and how it is read.

    Attributes:
        option: of the configuration group ``faces``.
        settings: of that option.
        description: in words.
        source: reads the images.
    """

    option: str
    settings: dict[str, str]
    description: str
    source: ImageFileSource

    @property
    def overrides(self) -> list[str]:
        """The same for the command line, without quotes.

        >>> Layout("folder", {"root": "a b"}, "", FolderFaces("a b")).overrides
        ['faces=folder', 'faces.root=a b']
        """
        settings = [f"faces.{key}={value}" for key, value in self.settings.items()]
        return [f"faces={self.option}", *settings]


@dataclass(frozen=True)
class Survey:
    """What is in a source.

    Attributes:
        images: number of images of each person, by the identity.
        notes: on what was found and left out.
        n_sampled: images that were decoded.
        unreadable: reasons for those that cannot be, and how many.
        sizes: width and height in pixels of the others.
        n_faces: in how many of these an audit would find a face; None: the detector is not
            installed.
        n_equal: images that are byte-equal to another one, of which one is not counted.
        n_strangers: of these, those that are under another person.
        compared_all: whether all files of equal size were compared, not just the first of them.
    """

    images: Counter[str]
    notes: list[str]
    n_sampled: int
    unreadable: Counter[str]
    sizes: list[tuple[int, int]]
    n_faces: int | None
    n_equal: int
    n_strangers: int
    compared_all: bool = True

    def n_identities_with(self, n_images: int) -> int:
        """People with at least so many images."""
        return sum(count >= n_images for count in self.images.values())


def recognize(place: str) -> Layout:
    """The layout of a folder or file.

    Args:
        place: local path or URI.

    Raises:
        BadInputError: nothing is there, no layout or more than one table fits, or CelebA lacks its
            identities; the message says what was found.
    """
    _, _, info = root_info(place)
    if info.type == fs.FileType.NotFound:
        raise BadInputError(f"faces: no folder or file {place}, and no option of that name")
    if info.is_file:
        return _file(place)
    if is_celeba(place):
        return Layout("celeba", {"root": place}, "CelebA, aligned", CelebaFaces(place))
    listed = list_folder(place, "images")
    if any(file.label.endswith(".faiss") for file in listed):
        raise BadInputError(
            f"faces: {place} is a gallery of embeddings, as `cldmray search --build` saves it; "
            "every attacker embeds images by itself: name the folder of images"
        )
    images = without_companions(listed)[0]
    labels = [file.label for file in images]
    tables = [
        table
        for file in listed
        if "/" not in file.label
        and file.label.endswith((*TABLES, ".parquet"))
        and _is_table(table := storage.join(place, file.label))
    ]
    if len(tables) > 1:
        raise BadInputError(
            f"faces: {place} holds {len(tables)} tables of images and people; name one: "
            f"faces={tables[0]}"
        )
    if tables:
        return _file(tables[0])
    if not images:
        endings = Counter(splitext(file.label)[1] for file in listed)
        if endings[".tar"]:
            description = f"{_count(endings['.tar'], 'tar file')} of WebDataset"
            return _archive("webdataset", place, description)
        if endings[".parquet"]:
            return _archive("parquet", place, _count(endings[".parquet"], "Parquet file"))
        layout = ", ".join(f"{n} {end or 'without ending'}" for end, n in endings.most_common(3))
        raise BadInputError(f"faces: no images below {place}; found {layout or 'nothing'}")
    refuse_unnamed(place, labels)
    return _folder(place, labels)


def _file(place: str) -> Layout:
    if place.endswith(".tar"):
        return _archive("webdataset", place, "a tar file of WebDataset")
    if place.endswith(".parquet") and not _is_table(place):
        return _archive("parquet", place, "a Parquet file of images")
    if place.endswith((*TABLES, ".parquet")):
        source = TableFaces(place)
        return Layout("table", {"table": place}, "images with a table of people", source)
    raise BadInputError(f"faces: {place} is no folder, table (.csv, .jsonl, .parquet) or .tar")


def _archive(option: str, place: str, description: str) -> Layout:
    reader = WebDatasetFaces if option == "webdataset" else ParquetFaces
    source: ImageFileSource = reader(place)
    return Layout(option, {"root": place}, description, source)


def _is_table(uri: str) -> bool:
    """Whether a file has a column of paths and one of people, as text."""
    try:
        columns = set(read_text_table(uri, "faces.table", EXPECTED).column_names)
    except BadInputError:
        return False
    return not columns.isdisjoint(PATHS) and not columns.isdisjoint(IDENTITY_NAMES)


def _folder(place: str, labels: Sequence[str]) -> Layout:
    """A folder of image files, by their paths."""
    if all(map(_of_ffhq, labels)):
        return _patterned("ffhq", place, "one image a person, as in FFHQ", EACH_FILE)
    inner = [label for label in labels if "/" in label]
    if len(inner) * 2 >= len(labels):
        description = "one sub-folder a person"
        if all(_of_lfw(label) for label in inner):
            return Layout("lfw", {"root": place}, f"{description}, as in LFW", LfwFaces(place))
        return Layout("folder", {"root": place}, description, FolderFaces(place))
    identities = Counter(match[1] for label in labels if (match := re.match(NUMBERED, label)))
    if identities.total() * 2 > len(labels) and len(identities) * 2 <= identities.total():
        return _patterned("folder", place, "images in one folder, named after people", NUMBERED)
    return _patterned("ffhq", place, "images in one folder, one image a person", EACH_FILE)


def _patterned(option: str, place: str, description: str, pattern: str) -> Layout:
    source = FolderFaces(place, identity_pattern=pattern)
    settings = {"root": place} if option == "ffhq" else {"root": place, "identity_pattern": pattern}
    return Layout(option, settings, description, source)


def _of_ffhq(label: str) -> bool:
    """Whether a path is one of FFHQ: ``00000/00123.png``, a thousand images a folder."""
    match = re.search(r"(?:^|/)(\d+)/(\d+)[.]\w+$", label)
    return match is not None and int(match[1]) == int(match[2]) // 1000 * 1000


def _of_lfw(label: str) -> bool:
    """Whether a path is one of LFW: ``Ann_Lee/Ann_Lee_0001.jpg``."""
    return re.search(r"(?:^|/)([^/]+)/\1_\d{4}[.]jpg$", label) is not None


def survey(source: ImageFileSource) -> Survey:
    """Count people and images, and look at some of them.

    Raises:
        BadInputError: the source cannot be listed.
    """
    listing = source.listing()
    step = max(1, listing.num_rows // SAMPLE)
    sample = listing["location"].to_pylist()[::step][:SAMPLE]
    find = _detector(source)
    sizes: list[tuple[int, int]] = []
    n_faces = 0
    unreadable: Counter[str] = Counter()
    for content in source.read(sample):
        try:
            scene = decode_whole(content, source.max_pixels)
        except InvalidImageError as error:
            unreadable[error.reason] += 1
            continue
        sizes.append((scene.shape[1], scene.shape[0]))
        n_faces += find is not None and find_face(scene, find) is not None
    candidates = _of_equal_size(listing)
    n_equal, n_strangers = _equal(source, candidates.slice(0, MOST_COMPARED))
    return Survey(
        images=Counter(listing["identity"].to_pylist()),
        notes=listing_notes(listing),
        n_sampled=len(sample),
        unreadable=unreadable,
        sizes=sizes,
        n_faces=None if find is None else n_faces,
        n_equal=n_equal,
        n_strangers=n_strangers,
        compared_all=candidates.num_rows <= MOST_COMPARED,
    )


def _detector(source: ImageFileSource) -> FindFaces | None:
    """The source's detector, opened; None: it is not installed."""
    try:
        source.detector.version()
    except MissingDependencyError:
        return None
    return source.detector.open()


def _of_equal_size(listing: pa.Table) -> pa.Table:
    """Rows of the images that can be byte-equal to another one."""
    by_version: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in listing.to_pylist():
        by_version[row["version"].partition("-")[0]].append(row)  # the size, where it is a file's
    rows = [row for rows in by_version.values() if len(rows) > 1 for row in rows]
    return pa.Table.from_pylist(rows, schema=listing.schema)


def _equal(source: FaceSource, candidates: pa.Table) -> tuple[int, int]:
    """Images that are byte-equal to another one, and those of them under another person.

    One image of each group of equal ones is not counted. The person of a group is the one under
    whom most of it stands.

    Args:
        source: reads the images, a block at a time.
        candidates: rows of its listing.
    """
    images_of: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for block in source.reading_blocks(candidates, SAMPLE):
        contents = source.read(block["location"].to_pylist())
        for row, content in zip(block.to_pylist(), contents, strict=True):
            if content is not None:
                images_of[hashing.digest(content)].add((row["identity"], row["sample_id"]))
    equal = strangers = 0
    for images in images_of.values():
        (_, most), *_ = Counter(identity for identity, _ in images).most_common(1)
        equal += len(images) - 1
        strangers += len(images) - most
    return equal, strangers


def describe(layout: Layout, result: Survey) -> list[str]:
    """The lines of ``cldmray plan faces=DIR``, without names of people."""
    counts = sorted(result.images.values())
    each = f"with {counts[0]} to {counts[-1]} images each (median {median(counts):g})"
    if counts[0] == counts[-1]:
        each = f"with {_count(counts[0], 'image')} each"
    lines = [
        f"layout   {layout.description}",
        f"people   {len(counts)}, {each}; {result.n_identities_with(2)} with at least 2, "
        f"{result.n_identities_with(5)} with at least 5",
        f"images   {sum(counts)}",
    ]
    if result.sizes:
        widths, heights = zip(*result.sizes, strict=True)
        kinds = len(set(result.sizes))
        lines.append(
            f"sizes    {min(widths)}x{min(heights)} to {max(widths)}x{max(heights)} pixels"
            if kinds > 1
            else f"sizes    {widths[0]}x{heights[0]} pixels"
        )
    faces = (
        "not looked for: install the extra recognizer"
        if result.n_faces is None
        else (f"found in {result.n_faces} of {len(result.sizes)} images looked at")
    )
    lines.append(f"faces    {faces}")
    lines.append(f"crop     {_crop(layout.source)}")
    lines += [f"bad      {n} of {result.n_sampled}: {why}" for why, n in result.unreadable.items()]
    strangers = f", {result.n_strangers} of them under another person" if result.n_strangers else ""
    cut = "" if result.compared_all else f", of the first {MOST_COMPARED:,} compared"
    lines.append(f"equal    {result.n_equal} images are copies of another one{strangers}{cut}")
    lines += [f"note     {note}" for note in [*result.notes, *_reservations(result)]]
    return [*lines, f"use      {shlex.join(_use(layout, result))}"]


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _crop(source: FaceSource) -> str:
    """What becomes of an image, in words."""
    if source.finds_faces:
        return "each face is found and brought into place (faces.align=landmarks)"
    return f"{source.crop or 'the largest central square'}: these images are aligned already"


def _reservations(result: Survey) -> list[str]:
    """Why these people cannot be audited, or not by every attacker."""
    several = result.n_identities_with(2)
    if several > 1:
        if _division(result.images, _fewest(result)):
            return []
        return [
            "These people are too few for attackers that learn: two are evaluated, two learnt "
            "from, and two validate. Add people."
        ]
    reason = "Nobody here can be audited: a person needs two images."
    if several:
        reason = "Nobody here can be audited: it takes two people with two images each."
    return [f"{reason} They can be distractors of another audit."]


def _use(layout: Layout, result: Survey) -> list[str]:
    """Overrides of an audit of this source, or of one that takes it for distractors."""
    if result.n_identities_with(2) < 2:
        place = layout.settings.get("root") or layout.settings["table"]
        return ["faces=YOUR_FACES", f"gallery.faces={place}"]
    overrides = layout.overrides
    fewest = _fewest(result)
    if fewest == 2:
        overrides.append("splits.min_images=2")
    usual = SplitConfig()
    config = _division(result.images, fewest) or SplitConfig(
        min_images=fewest, n_evaluation_identities=2
    )
    for key in ("n_evaluation_identities", "validation_fraction"):
        if (value := getattr(config, key)) != getattr(usual, key):
            overrides.append(f"splits.{key}={value}")
    return overrides


def _fewest(result: Survey) -> int:
    """Images that a person needs to be evaluated."""
    return 5 if result.n_identities_with(5) >= ENOUGH_IDENTITIES else 2


def _division(images: Mapping[str, int], fewest: int) -> SplitConfig | None:
    """The split that evaluates most people, at most two thirds, and leaves enough to attackers.

    These learn from two people and validate on two others, one of whom has two images.

    Args:
        images: of each person.
        fewest: images that a person needs to be evaluated.

    Returns:
        None: there are too few people.
    """
    eligible = sum(count >= fewest for count in images.values())
    most = min(SplitConfig.n_evaluation_identities, eligible * 2 // 3)
    for n_evaluated in range(most, 1, -1):
        for fraction in VALIDATION_FRACTIONS:
            config = SplitConfig(
                min_images=fewest,
                n_evaluation_identities=n_evaluated,
                validation_fraction=fraction,
            )
            splits = assign(images, config)
            learners = sum(split == ATTACKER for split in splits.values())
            validating = [
                images[identity]
                for identity, split in splits.items()
                if split == ATTACKER_VALIDATION
            ]
            if min(learners, len(validating)) >= 2 and max(validating) >= 2:
                return config
    return None

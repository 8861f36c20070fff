"""Commands on what lies in storage: a finished audit is shown again, a gallery is searched."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cldmray import storage
from cldmray.arrays import Images
from cldmray.errors import BadInputError, redact_text
from cldmray.faces.base import Align, ImageFileSource
from cldmray.gallery.index import Matches
from cldmray.recognizers.base import Recognizer

BLOCK = 256
"""Images that are decoded and embedded at once."""
BLANK = 255
"""Grey level of a place in a sheet of matches for which there is no image."""


def show_report(folder: str) -> None:
    """Write ``report.html`` of a finished audit anew, and print its verdict.

    Args:
        folder: its output folder, local or remote.

    Raises:
        BadInputError: no audit has finished there.
    """
    from cldmray.report.html import write_html
    from cldmray.report.terminal import print_report
    from cldmray.results.files import read_audit

    report = read_audit(folder)
    page = storage.join(folder, "report.html")
    write_html(report, page)
    print_report(report)
    print(f"\nReport: {redact_text(page)}")


def recognizer_called(name: str) -> Recognizer:
    """A recognizer of ``cldmray list recognizers`` with its shipped settings.

    Raises:
        ConfigError: there is none of that name, or it needs settings.
    """
    from cldmray.config.compose import compose
    from cldmray.config.instantiate import build

    overrides = ["attackers=[pretrained]", f"recognizer@attackers.pretrained.recognizer={name}"]
    node = compose("audit", overrides)["attackers"]["pretrained"]["recognizer"]
    recognizer: Recognizer = build(node, Recognizer, "recognizer")
    return recognizer


@dataclass(frozen=True)
class Built:
    """What a gallery was built from.

    Attributes:
        n_images: that are in it.
        left_out: images that are not, counted by the reason.
    """

    n_images: int
    left_out: Counter[str]

    def __str__(self) -> str:
        """A line for the user.

        >>> str(Built(2, Counter({"empty file": 1})))
        'Gallery: 2 of 3 images; 1 empty file'
        """
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.most_common())
        total = self.n_images + self.left_out.total()
        return f"Gallery: {self.n_images} of {total} images{reasons and f'; {reasons}'}"


def build_gallery(uri: str, root: str, recognizer: Recognizer, size: int, *, align: Align) -> Built:
    """Embed the faces of a folder and save them as a gallery.

    Args:
        uri: folder of the gallery, local or remote.
        root: faces, in any layout that is recognised.
        recognizer: embeds them.
        size: side in pixels to which they are brought.
        align: how faces are found, as of :class:`~cldmray.faces.base.ImageFileSource`.

    Returns:
        How many images are in it; those that cannot be read, or show no face, are left out.

    Raises:
        BadInputError: there is no image that can be read; the message says why.
    """
    from cldmray.faces.decode import InvalidImageError
    from cldmray.gallery.index import GalleryIndex

    source = _source(root, size, align)
    read_face = source.open()
    listing = source.listing()
    embeddings, rows = [], []
    left_out: Counter[str] = Counter()
    for start in range(0, listing.num_rows, BLOCK):
        images = []
        block = listing.slice(start, BLOCK)["location"].to_pylist()
        for row, content in enumerate(source.read(block), start):
            try:
                images.append(read_face(content).image)
            except InvalidImageError as error:
                left_out[error.reason] += 1
                continue
            rows.append(row)
        if images:
            embeddings.append(recognizer.embed(np.stack(images)))
    built = Built(len(rows), left_out)
    if not rows:
        raise BadInputError(f"no image in {root} can be read. {built}")
    kept = listing.take(rows)
    GalleryIndex.build(
        np.concatenate(embeddings),
        kept["identity"].to_pylist(),
        kept["sample_id"].to_pylist(),
        recognizer=recognizer.name,
    ).save(uri)
    return built


def query_images(paths: Sequence[str], size: int, align: Align) -> Images:
    """The faces of image files as one array (N, size, size, 3).

    Raises:
        BadInputError: a file is no image, or shows no face; the message names it.
    """
    from cldmray.faces.decode import InvalidImageError
    from cldmray.faces.sources.folder import FolderFaces

    read_face = FolderFaces("", size=size, align=align).open()
    images = []
    for path in paths:
        try:
            images.append(read_face(storage.read_bytes(path)).image)
        except (InvalidImageError, OSError) as error:
            raise BadInputError(f"{path}: {error}") from error
    return np.stack(images)


def write_evidence(uri: str, queries: Images, matches: Matches, root: str, align: Align) -> None:
    """Write a PNG with one row a query: its face, then those of its matches, the best first.

    Args:
        uri: of the file, local or remote.
        queries: faces, shape (N, size, size, 3).
        matches: of each query, shape (N, k).
        root: the faces of the gallery; a match that is not there, or cannot be read, stays blank.
        align: how faces are found.

    Raises:
        BadInputError: none of the matches is there.
    """
    from cldmray.faces.decode import InvalidImageError
    from cldmray.report.figures.image_grid import image_sheet

    source = _source(root, queries.shape[1], align)
    read_face, listing = source.open(), source.listing()
    ids, locations = (listing[name].to_pylist() for name in ("sample_id", "location"))
    wanted = sorted(set(matches.sample_ids.ravel().tolist()) & set(ids))
    if not wanted:
        raise BadInputError(f"{root} holds none of the images that match; give the gallery's faces")
    place = dict(zip(ids, locations, strict=True))
    faces = {}
    for sample, content in zip(wanted, source.read([place[key] for key in wanted]), strict=True):
        try:
            faces[sample] = read_face(content).image
        except InvalidImageError:
            continue
    blank = np.full(queries.shape[1:], BLANK, np.uint8)
    rows = [
        (f"query {row + 1}", "and its matches", np.stack([query, *own]))
        for row, query in enumerate(queries)
        for own in [[faces.get(sample, blank) for sample in matches.sample_ids[row].tolist()]]
    ]
    storage.write_bytes(uri, image_sheet(rows))


def _source(root: str, size: int, align: Align) -> ImageFileSource:
    """The source that reads the faces of a place, whatever its layout."""
    from cldmray.faces.sources.survey import recognize

    settings: dict[str, Any] = {"size": size, "align": align}
    return replace(recognize(root).source, **settings)

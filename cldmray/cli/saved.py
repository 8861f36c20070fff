"""Commands on what lies in storage: a finished audit is shown again, a gallery is searched."""

from collections.abc import Sequence

import numpy as np

from cldmray import storage
from cldmray.arrays import Images
from cldmray.errors import BadInputError, redact_text
from cldmray.faces.base import Align
from cldmray.recognizers.base import Recognizer

BLOCK = 256
"""Images that are decoded and embedded at once."""


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


def build_gallery(uri: str, root: str, recognizer: Recognizer, size: int, *, align: Align) -> int:
    """Embed the faces of a folder and save them as a gallery.

    Args:
        uri: folder of the gallery, local or remote.
        root: faces, one sub-folder an identity.
        recognizer: embeds them.
        size: side in pixels to which they are brought.
        align: how faces are found, as of :class:`~cldmray.faces.base.ImageFileSource`.

    Returns:
        Images in the gallery; those that cannot be read are left out.

    Raises:
        BadInputError: there is no image that can be read.
    """
    from cldmray.faces.decode import InvalidImageError
    from cldmray.faces.sources.folder import FolderFaces
    from cldmray.gallery.index import GalleryIndex

    source = FolderFaces(root, size=size, align=align)
    read_face = source.open()
    listing = source.listing()
    embeddings, rows = [], []
    for start in range(0, listing.num_rows, BLOCK):
        images = []
        block = listing.slice(start, BLOCK)["location"].to_pylist()
        for row, content in enumerate(source.read(block), start):
            try:
                images.append(read_face(content).image)
            except InvalidImageError:
                continue
            rows.append(row)
        if images:
            embeddings.append(recognizer.embed(np.stack(images)))
    if not rows:
        raise BadInputError(f"no image in {root} can be read")
    kept = listing.take(rows)
    GalleryIndex.build(
        np.concatenate(embeddings),
        kept["identity"].to_pylist(),
        kept["sample_id"].to_pylist(),
        recognizer=recognizer.name,
    ).save(uri)
    return len(rows)


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

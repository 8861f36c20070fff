"""Files that stand beside images and are none: litter of operating systems, captions, videos.

They are told by their names alone. A file of any other name is read, whatever its extension, and
rejected with a reason if it is no image.
"""

from collections import Counter
from collections.abc import Iterable
from posixpath import basename, splitext

from cldmray.faces.sources.files import ListedFile

LITTER = {
    "thumbs.db",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "icon\r",
    "zbthumbnail.info",
}
"""Files that operating systems and viewers leave, in lower case; hidden ones are never listed."""
FOLDERS = {
    "@eadir",
    "__macosx",
    "#recycle",
    "@recycle",
    "$recycle.bin",
    "system volume information",
    "lost+found",
}
"""Folders of thumbnails and of deleted files that storage devices keep, in lower case."""
CAPTIONS = ".txt .caption .json .jsonl .xml .xmp .aae .csv .tsv .yaml .yml .md .html .htm .url"
DOCUMENTS = ".log .ini .db .lnk .pdf .doc .docx .xls .xlsx .py .sh .md5 .sha256"
VIDEOS = ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .3gp .mts .thm .mp3 .m4a .wav .aac"
ARCHIVES = ".zip .tar .gz .tgz .7z .rar"
ARRAYS = ".parquet .arrow .mat .npy .npz .h5 .pkl .pt .pth .safetensors .lmdb .rec .idx .lst"
EXTENSIONS = set(" ".join((CAPTIONS, DOCUMENTS, VIDEOS, ARCHIVES, ARRAYS)).split())
"""Of files that hold no image, in lower case."""


def is_companion(label: str) -> bool:
    """Whether a file below a root is known to be no image, by its name and folders.

    >>> [is_companion(name) for name in ("Ann/1.jpg", "Ann/Thumbs.db", "@eaDir/1.jpg", "Ann/1")]
    [False, True, True, False]
    """
    *folders, name = label.lower().split("/")
    is_named = name in LITTER or splitext(name)[1] in EXTENSIONS
    return is_named or not FOLDERS.isdisjoint(folders)


def without_companions(files: Iterable[ListedFile]) -> tuple[list[ListedFile], list[str]]:
    """The files that may be images, and a note that counts the others; none, no note."""
    kept: list[ListedFile] = []
    skipped: Counter[str] = Counter()
    for file in files:
        if is_companion(file.label):
            skipped[_kind(file.label)] += 1
        else:
            kept.append(file)
    if not skipped:
        return kept, []
    kinds = ", ".join(f"{count} {kind}" for kind, count in skipped.most_common())
    return kept, [f"Files beside the images, skipped: {skipped.total()} ({kinds})."]


def _kind(label: str) -> str:
    """What a companion is counted as; it must name nobody."""
    name = basename(label).lower()
    if not FOLDERS.isdisjoint(label.lower().split("/")[:-1]):
        return "in folders of storage devices"
    return name.strip() if name in LITTER else splitext(name)[1]

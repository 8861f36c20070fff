"""Files of plain images, and what sources make of them."""

import io
from pathlib import Path

from PIL import Image

from cldmray.faces.base import FaceSource
from cldmray.faces.decode import decode


def image(shade: int = 100, size: tuple[int, int] = (20, 20), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade, shade, shade)).save(buffer, kind)
    return buffer.getvalue()


def put(root: Path, names: list[str], content: bytes | None = None) -> Path:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image(number) if content is None else content)
    return root


def identities_of(source: FaceSource) -> dict[str, int]:
    """Images of each identity."""
    counts: dict[str, int] = {}
    for identity in source.listing()["identity"].to_pylist():
        counts[identity] = counts.get(identity, 0) + 1
    return counts


def shades(source: FaceSource) -> set[int]:
    """Grey level of each image that a source gives, read and decoded."""
    contents = source.read(source.listing()["location"].to_pylist())
    return {int(decode(content, None, 8)[0, 0, 0]) for content in contents}

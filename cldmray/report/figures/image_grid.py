"""Sheets of images: a labelled row for each anonymizer or reconstruction."""

import io
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cldmray.arrays import Images
from cldmray.errors import BadInputError
from cldmray.results.audit import Grid

CELL = 128
GAP = 6
LABEL_WIDTH = 216
FONT_SIZE = 15
INK, MUTED = (31, 41, 51), (95, 107, 122)


def image_grid(grid: Grid) -> bytes:
    """The images as one PNG: originals, then per anonymizer its condition and its output.

    Args:
        grid: N >= 1 originals; every row holds N images. Images are scaled to ``CELL``
            pixels a side, keeping their proportions.

    Returns:
        PNG of ``LABEL_WIDTH + N * (CELL + GAP)`` by ``rows * (CELL + GAP)`` pixels.

    Raises:
        BadInputError: a row is not of shape (N, H, W, 3) and uint8.
    """
    rows: list[tuple[str, str, Images]] = [("original", "", grid.originals)]
    for row in grid.rows:
        if row.condition is not None:
            rows.append((row.anonymizer, "condition", row.condition))
        rows.append((row.anonymizer, "anonymized", row.anonymized))
    return image_sheet(rows)


def image_sheet(rows: list[tuple[str, str, Images]]) -> bytes:
    """Rows of images as one PNG, each with its name and, below it, what the images are.

    Args:
        rows: at least one; all with as many images, at least one.

    Raises:
        BadInputError: a row is not of shape (N, H, W, 3) and uint8.
    """
    count = len(rows[0][2])
    sheet = Image.new(
        "RGB", (LABEL_WIDTH + count * (CELL + GAP), len(rows) * (CELL + GAP)), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for index, (name, kind, images) in enumerate(rows):
        _check(name, images, count)
        top = index * (CELL + GAP)
        _draw_label(draw, top, name, kind)
        for column, image in enumerate(images):
            cell = _fit(image)
            left = LABEL_WIDTH + column * (CELL + GAP)
            sheet.paste(cell, (left + (CELL - cell.width) // 2, top + (CELL - cell.height) // 2))
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _check(name: str, images: Images, count: int) -> None:
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise BadInputError(f"grid row {name}: {images.shape} {images.dtype} are no images")
    if count == 0 or len(images) != count:
        raise BadInputError(f"grid row {name}: {len(images)} images for {count} originals")


def _fit(image: Images) -> Image.Image:
    """An image of shape (H, W, 3), scaled to ``CELL`` pixels on its longer side."""
    canvas = Image.fromarray(image)
    scale = CELL / max(canvas.size)
    size = (max(1, round(canvas.width * scale)), max(1, round(canvas.height * scale)))
    return canvas.resize(size, Image.Resampling.LANCZOS)


def _draw_label(draw: ImageDraw.ImageDraw, top: int, name: str, kind: str) -> None:
    """Write a row's name and, below it, what its images are."""
    middle = top + CELL // 2
    offset = FONT_SIZE * 2 // 3 if kind else 0
    large = _font(FONT_SIZE)
    text = _shorten(name, large)
    draw.text((0, middle - offset), text, fill=INK, font=large, anchor="lm")
    if kind:
        draw.text((0, middle + offset), kind, fill=MUTED, font=_font(FONT_SIZE - 2), anchor="lm")


def _shorten(name: str, typeface: ImageFont.FreeTypeFont) -> str:
    text = name
    while typeface.getlength(text) > LABEL_WIDTH - GAP and len(text) > 1:
        text = text.rstrip("…")[:-1] + "…"
    return text


def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which Matplotlib brings along."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / "DejaVuSans.ttf"), size)

"""The picture grid: originals, conditions and anonymized pictures, one labelled row each."""

import io
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cldmray.arrays import Pictures
from cldmray.errors import BadInputError
from cldmray.results.audit import Grid

CELL = 128
GAP = 6
LABEL_WIDTH = 216
FONT_SIZE = 15
INK, MUTED = (31, 41, 51), (95, 107, 122)


def picture_grid(grid: Grid) -> bytes:
    """The pictures as one PNG: originals, then per anonymizer its condition and its output.

    Args:
        grid: N >= 1 originals; every row holds N pictures. Pictures are scaled to ``CELL``
            pixels a side, keeping their proportions.

    Returns:
        PNG of ``LABEL_WIDTH + N * (CELL + GAP)`` by ``rows * (CELL + GAP)`` pixels.

    Raises:
        BadInputError: a row is not of shape (N, H, W, 3) and uint8.
    """
    rows: list[tuple[str, str, Pictures]] = [("original", "", grid.originals)]
    for row in grid.rows:
        if row.condition is not None:
            rows.append((row.anonymizer, "condition", row.condition))
        rows.append((row.anonymizer, "anonymized", row.anonymized))
    return picture_sheet(rows)


def picture_sheet(rows: list[tuple[str, str, Pictures]]) -> bytes:
    """Rows of pictures as one PNG, each with its name and, below it, what the pictures are.

    Args:
        rows: at least one; all with as many pictures, at least one.

    Raises:
        BadInputError: a row is not of shape (N, H, W, 3) and uint8.
    """
    count = len(rows[0][2])
    sheet = Image.new(
        "RGB", (LABEL_WIDTH + count * (CELL + GAP), len(rows) * (CELL + GAP)), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for index, (name, kind, pictures) in enumerate(rows):
        _check(name, pictures, count)
        top = index * (CELL + GAP)
        _label(draw, top, name, kind)
        for column, picture in enumerate(pictures):
            cell = _fit(picture)
            left = LABEL_WIDTH + column * (CELL + GAP)
            sheet.paste(cell, (left + (CELL - cell.width) // 2, top + (CELL - cell.height) // 2))
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _check(name: str, pictures: Pictures, count: int) -> None:
    if pictures.ndim != 4 or pictures.shape[3] != 3 or pictures.dtype != np.uint8:
        raise BadInputError(f"grid row {name}: {pictures.shape} {pictures.dtype} are no pictures")
    if count == 0 or len(pictures) != count:
        raise BadInputError(f"grid row {name}: {len(pictures)} pictures for {count} originals")


def _fit(picture: Pictures) -> Image.Image:
    image = Image.fromarray(picture)
    scale = CELL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _label(draw: ImageDraw.ImageDraw, top: int, name: str, kind: str) -> None:
    middle = top + CELL // 2
    offset = FONT_SIZE * 2 // 3 if kind else 0
    font = _font(FONT_SIZE)
    text = _shorten(name, font)
    draw.text((0, middle - offset), text, fill=INK, font=font, anchor="lm")
    if kind:
        draw.text((0, middle + offset), kind, fill=MUTED, font=_font(FONT_SIZE - 2), anchor="lm")


def _shorten(name: str, font: ImageFont.FreeTypeFont) -> str:
    text = name
    while font.getlength(text) > LABEL_WIDTH - GAP and len(text) > 1:
        text = text.rstrip("…")[:-1] + "…"
    return text


def _font(size: int) -> ImageFont.FreeTypeFont:
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / "DejaVuSans.ttf"), size)

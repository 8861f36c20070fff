"""Sheets of images: examples of every anonymizer, and evidence of leaks, one labelled row each."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cldmray.arrays import Images
from cldmray.errors import BadInputError
from cldmray.report.formatting import attacker_name
from cldmray.results.audit import Evidence, Grid

CELL = 128
GAP = 6
LABEL_WIDTH = 216
FONT_SIZE = 15
INK, MUTED = (31, 41, 51), (95, 107, 122)
FRAME = 4
MATED, NON_MATED = (31, 122, 77), (227, 231, 236)
"""Colours of the frames of matches that show the image's own person, and of others."""


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


def evidence_figure(evidence: Sequence[Evidence]) -> bytes:
    """One row per example: the anonymized image, then its matches with their scores.

    The frame of a match that shows the image's own person is green.

    Args:
        evidence: at least one.

    Returns:
        PNG.
    """
    columns = 1 + max(len(item.matches) for item in evidence)
    line = CELL + GAP + 20
    sheet = Image.new(
        "RGB", (LABEL_WIDTH + columns * (CELL + 2 * GAP), len(evidence) * line), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for row, item in enumerate(evidence):
        top = row * line
        _draw_label(draw, top, item.anonymizer, attacker_name(item.attacker))
        _paste(sheet, item.anonymized, LABEL_WIDTH, top)
        draw.text((LABEL_WIDTH, top + CELL + 2), "anonymized", fill=MUTED, font=_font(13))
        for place, image in enumerate(item.matches):
            left = LABEL_WIDTH + (place + 1) * (CELL + 2 * GAP)
            _paste(sheet, image, left, top)
            colour = MATED if item.mated[place] else NON_MATED
            edge = (left - FRAME // 2, top, left + CELL + FRAME // 2, top + CELL)
            draw.rectangle(edge, outline=colour, width=FRAME)
            suffix = ", same person" if item.mated[place] else ""
            text = f"{item.scores[place]:.2f}{suffix}"
            draw.text((left, top + CELL + 2), text, fill=INK, font=_font(13))
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _paste(sheet: Image.Image, image: Images, left: int, top: int) -> None:
    cell = _fit(image)
    sheet.paste(cell, (left + (CELL - cell.width) // 2, top + (CELL - cell.height) // 2))


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

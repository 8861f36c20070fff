"""The image grid has the promised size and shows each image in its place."""

import io

import numpy as np
import pytest
from PIL import Image

from cldmray.errors import BadInputError
from cldmray.report.figures.image_grid import CELL, GAP, LABEL_WIDTH, image_grid
from cldmray.results.audit import Grid, GridRow


def flat(*colours, height=16, width=16):
    return np.stack([np.full((height, width, 3), c, np.uint8) for c in colours])


def decode(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def centre(sheet, row, column):
    half, step = CELL // 2, CELL + GAP
    return sheet[row * step + half, LABEL_WIDTH + column * step + half].tolist()


def test_rows_and_columns_by_hand():
    red, green, blue = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    grid = Grid(
        flat(red, green),
        [
            GridRow("with", flat(blue, red), flat(green, blue)),
            GridRow("none", None, flat(blue, red)),
        ],
    )
    sheet = decode(image_grid(grid))
    assert sheet.shape == (4 * (CELL + GAP), LABEL_WIDTH + 2 * (CELL + GAP), 3)
    visible = [[tuple(centre(sheet, row, column)) for column in range(2)] for row in range(4)]
    assert visible == [[red, green], [blue, red], [green, blue], [blue, red]]
    assert (sheet[:, :LABEL_WIDTH] < 128).any()


def test_proportions_are_kept():
    sheet = decode(image_grid(Grid(flat((9, 9, 9), height=64, width=32), [])))
    column = sheet[CELL // 2, LABEL_WIDTH : LABEL_WIDTH + CELL, 0]
    assert (column == 9).sum() == CELL // 2


def test_long_names_stay_in_their_column():
    images = flat((255, 255, 255))
    sheet = decode(image_grid(Grid(images, [GridRow("x" * 500, None, images)])))
    assert (sheet[:, LABEL_WIDTH - 1 :] == 255).all()


@pytest.mark.parametrize(
    "images",
    [flat((0, 0, 0), (0, 0, 0)), flat((0, 0, 0))[..., 0], flat((0, 0, 0)).astype(float)],
)
def test_bad_rows_are_refused_by_name(images):
    with pytest.raises(BadInputError, match="the row"):
        image_grid(Grid(flat((0, 0, 0)), [GridRow("the row", None, images)]))

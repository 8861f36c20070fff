"""The example grid: who is shown, and with which maps."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from cldmray.arrays import Images
from cldmray.conditions import Canny, SoftEdge
from cldmray.conditions.base import Condition
from cldmray.faces.records import decode_image, encode_image
from cldmray.report.examples import choose_examples
from cldmray.report.examples import example_grid as grid_of
from cldmray.results.audit import Grid

NONE: Mapping[str, Condition] = {}


def image(confidence_level: int, size: int = 16) -> Images:
    made = np.full((size, size, 3), confidence_level, np.uint8)
    made[: size // 2, : size // 2] = 255 - confidence_level
    return made


def table(samples: Mapping[str, int]) -> pa.Table:
    """Rows ``<person>/<image>`` with an image of the given level."""
    return pa.table(
        {
            "sample_id": list(samples),
            "identity": [sample.split("/")[0] for sample in samples],
            "image": [
                encode_image(image(confidence_level)) for confidence_level in samples.values()
            ],
        }
    )


@pytest.fixture
def faces() -> pa.Table:
    return table({"ann/1": 10, "ann/2": 20, "bob/1": 30, "cat/1": 40, "cat/2": 50})


def anonymized(samples: list[str], confidence_level: int) -> pa.Table:
    return table(dict.fromkeys(samples, confidence_level))


def example_grid(
    faces: pa.Table, tables: Mapping[str, tuple[Mapping[str, Condition], pa.Table]], count: int
) -> Grid:
    """The grid of the samples that are samples."""
    samples = choose_examples(faces, [rows for _, rows in tables.values()], count)

    def own(rows: pa.Table) -> pa.Table:
        return rows.filter(pc.is_in(rows["sample_id"], pa.array(samples, pa.string())))

    return grid_of(own(faces), {name: (maps, own(rows)) for name, (maps, rows) in tables.items()})


ALL = ["ann/1", "ann/2", "bob/1", "cat/1", "cat/2"]


def levels(images: Images) -> list[int]:
    return [int(image[-1, -1, 0]) for image in images]


def test_the_first_image_of_each_person(faces: pa.Table) -> None:
    grid = example_grid(faces, {"blur": (NONE, anonymized(ALL[::-1], 90))}, 8)
    assert levels(grid.originals) == [10, 30, 40]
    (row,) = grid.rows
    assert (row.anonymizer, row.condition) == ("blur", None)
    assert row.anonymized.shape == grid.originals.shape == (3, 16, 16, 3)
    assert levels(row.anonymized) == [90] * 3


def test_only_images_that_every_anonymizer_has_anonymized(faces: pa.Table) -> None:
    tables = {
        "blur": (NONE, anonymized(ALL, 90)),
        "images": (NONE, anonymized(["ann/2", "cat/2", "cat/1"], 91)),
    }
    grid = example_grid(faces, tables, 8)
    assert levels(grid.originals) == [20, 40]
    assert [levels(row.anonymized) for row in grid.rows] == [[90, 90], [91, 91]]


def test_the_count_limits_it(faces: pa.Table) -> None:
    tables = {"blur": (NONE, anonymized(ALL, 90))}
    assert levels(example_grid(faces, tables, 2).originals) == [10, 30]
    empty = example_grid(faces, tables, 0)
    assert len(empty.originals) == 0 and empty.rows == []


def test_nothing_in_common_gives_no_grid(faces: pa.Table) -> None:
    tables = {"a": (NONE, anonymized(["ann/1"], 1)), "b": (NONE, anonymized(["bob/1"], 2))}
    grid = example_grid(faces, tables, 8)
    assert grid.originals.shape == (0, 1, 1, 3)
    assert grid.rows == []


def test_maps_of_several_conditions_are_laid_over_each_other(faces: pa.Table) -> None:
    canny, soft = Canny(), SoftEdge()
    tables = {
        "cldm-canny": ({"canny": canny}, anonymized(ALL, 90)),
        "cldm-both": ({"canny": canny, "soft": soft}, anonymized(ALL, 90)),
    }
    grid = example_grid(faces, tables, 8)
    originals = np.stack([decode_image(content) for content in faces["image"].to_pylist()[:4]])[
        [0, 2, 3]
    ]
    canny_map, both = (row.condition for row in grid.rows)
    assert canny_map is not None and both is not None
    np.testing.assert_array_equal(canny_map, canny(originals))
    np.testing.assert_array_equal(both, np.maximum(canny(originals), soft(originals)))

from typing import Any

import pytest

from cldmray import storage
from cldmray.engine.artifacts import Artifact

COLUMNS = ["sample_id", "image"]


def test_the_rows_of_some_samples(faces: Artifact) -> None:
    whole = faces.read(COLUMNS)
    ids = whole["sample_id"].to_pylist()
    wanted = [ids[30], ids[2], "absent", ids[17]]
    result = faces.read_samples(COLUMNS, wanted)
    assert result.column_names == COLUMNS
    assert result.equals(whole.take([2, 17, 30]))


def test_none(faces: Artifact) -> None:
    none = faces.read_samples(COLUMNS, [])
    assert (none.num_rows, none.column_names) == (0, COLUMNS)


def test_images_of_other_blocks_are_not_read(
    faces: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = faces.blocks()
    read: list[tuple[Any, Any]] = []
    read_table = storage.read_table

    def watched(uri: str, columns: Any = None, groups: Any = None) -> Any:
        read.append((columns, groups))
        return read_table(uri, columns, groups)

    (ids,) = first.read(["sample_id"])
    samples = ids["sample_id"][:2].combine_chunks()
    monkeypatch.setattr(storage, "read_table", watched)
    rows = [block.read_samples(COLUMNS, samples).num_rows for block in (first, second)]
    assert rows == [2, 0]
    assert faces.read_samples(COLUMNS, samples.to_pylist()).num_rows == 2
    group = first.row_group
    assert [groups for columns, groups in read if "image" in columns] == [[group], [group]]

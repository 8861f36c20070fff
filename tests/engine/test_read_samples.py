from typing import Any

import pytest

from cldmray import storage
from cldmray.engine.artifacts import Artifact, read_samples

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


def test_images_of_other_files_are_not_read(
    faces: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[str, Any]] = []
    read_table = storage.read_table

    def watched(uri: str, columns: Any = None) -> Any:
        read.append((uri, columns))
        return read_table(uri, columns)

    samples = read_table(faces.uris[0])["sample_id"][:2].combine_chunks()
    monkeypatch.setattr(storage, "read_table", watched)
    rows = [read_samples(uri, COLUMNS, samples).num_rows for uri in faces.uris]
    assert rows == [2, 0]
    assert [uri for uri, columns in read if "image" in columns] == [faces.uris[0]]

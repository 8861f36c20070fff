import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from cldmray import storage
from cldmray.errors import BadInputError, StorageError

ROOT = Path(__file__).resolve().parents[1]
LIMITED = """
import resource, sys
from cldmray import storage
from cldmray.errors import StorageError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    storage.write_bytes(sys.argv[1], bytes(2000))
except StorageError as error:
    print(error)
storage.write_bytes(sys.argv[1] + "-small", bytes(500))
"""

TABLE = pa.table({"name": ["a", "b"], "count": [1, 2]})


class TestPaths:
    def test_relative_and_home_paths_become_absolute(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", "/home/ada")
        assert storage.resolve("runs/x")[1] == f"{tmp_path}/runs/x"
        assert storage.resolve("~/x")[1] == "/home/ada/x"

    def test_uris_keep_their_file_system(self, tmp_path: Path) -> None:
        filesystem, path = storage.resolve(f"file://{tmp_path}/x")
        assert isinstance(filesystem, fs.LocalFileSystem)
        assert path == f"{tmp_path}/x"
        assert storage.resolve("mock://bucket/key")[0].type_name == "mock"

    def test_join(self) -> None:
        assert storage.join("s3://bucket/", "a", "b") == "s3://bucket/a/b"
        assert storage.join("work", "a") == "work/a"


class TestFiles:
    def test_write_creates_folders_and_replaces(self, tmp_path: Path) -> None:
        uri = str(tmp_path / "deep" / "er" / "file")
        assert not storage.exists(uri)
        storage.write_bytes(uri, b"one")
        storage.write_bytes(uri, b"two")
        assert storage.exists(uri)
        assert storage.read_bytes(uri) == b"two"
        assert [path.name for path in Path(uri).parent.iterdir()] == ["file"]

    def test_a_file_is_moved_over_another(self, tmp_path: Path) -> None:
        uri, target = str(tmp_path / "a"), str(tmp_path / "b")
        storage.write_bytes(uri, b"one")
        storage.write_bytes(target, b"two")
        storage.move(uri, target)
        assert [path.name for path in tmp_path.iterdir()] == ["b"]
        assert storage.read_bytes(target) == b"one"
        with pytest.raises(StorageError, match="No such file"):
            storage.move(uri, target)

    def test_a_failed_write_leaves_the_old_file_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uri = str(tmp_path / "file")
        storage.write_bytes(uri, b"old")
        with pytest.raises(TypeError):
            storage.write_bytes(uri, None)  # type: ignore[arg-type]
        assert storage.read_bytes(uri) == b"old"
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def test_a_file_that_grows_too_large_is_named_and_leaves_nothing(self, tmp_path: Path) -> None:
        process = subprocess.run(
            [sys.executable, "-c", LIMITED, str(tmp_path / "file")],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert process.returncode == 0, process.stderr
        assert process.stdout == (
            f"cannot write {tmp_path}/file: File too large; make room there, then run the same "
            "command again: finished stages are kept and found\n"
        )
        assert [path.name for path in tmp_path.iterdir()] == ["file-small"]

    def test_a_place_that_cannot_be_a_folder_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        expected = "Not a directory; see that it is there and that you may write there"
        with pytest.raises(StorageError, match=f"{tmp_path}/file/below/x: {expected}"):
            storage.write_bytes(str(tmp_path / "file" / "below" / "x"), b"")
        with pytest.raises(StorageError, match=f"cannot write {tmp_path}/file/below: {expected}"):
            storage.make_folder(str(tmp_path / "file" / "below"))

    def test_odd_names(self, tmp_path: Path) -> None:
        uri = storage.join(str(tmp_path), "a b%20c", "näme=1", "x?y#z")
        storage.write_bytes(uri, b"odd")
        assert storage.read_bytes(uri) == b"odd"

    def test_absent_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            storage.read_bytes(str(tmp_path / "absent"))

    def test_list_files(self, tmp_path: Path) -> None:
        for name in ("b", "a", "inner/c"):
            storage.write_bytes(storage.join(str(tmp_path), name), b"")
        names = [info.base_name for info in storage.list_files(str(tmp_path))]
        assert names == ["a", "b", "c"]
        assert len(storage.list_files(str(tmp_path), recursive=False)) == 2
        with pytest.raises(BadInputError, match="absent"):
            storage.list_files(str(tmp_path / "absent"))
        with pytest.raises(BadInputError, match="no such folder"):
            storage.list_files(str(tmp_path / "a"))

    def test_make_folder_twice(self, tmp_path: Path) -> None:
        for _ in range(2):
            storage.make_folder(str(tmp_path / "x" / "y"))
        assert (tmp_path / "x" / "y").is_dir()


class TestWritable:
    def test_a_folder_is_made_and_left_empty(self, tmp_path: Path) -> None:
        storage.check_writable("work", str(tmp_path / "deep" / "work"))
        assert list((tmp_path / "deep" / "work").iterdir()) == []

    def test_the_key_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(StorageError, match=f"^output: cannot write {tmp_path}/file/"):
            storage.check_writable("output", str(tmp_path / "file"))
        with pytest.raises(StorageError, match="^work: cannot open nowhere://x: "):
            storage.check_writable("work", "nowhere://x")

    def test_what_failed_decides_what_is_advised(self) -> None:
        messages = [
            str(storage.unwritable("x", code, "some\n words")) for code in (28, 30, 5, None)
        ]
        reasons = [
            text.removeprefix("cannot write x: ").partition(", then")[0] for text in messages
        ]
        assert reasons == [
            "No space left on device; make room there",
            "Read-only file system; make it writable",
            "Input/output error; see that it is there and that you may write there",
            "some words; see that it is there and that you may write there",
        ]


class TestTables:
    def test_round_trip(self, tmp_path: Path) -> None:
        uri = str(tmp_path / "seed=3" / "table.parquet")
        storage.write_table(uri, TABLE)
        assert storage.read_table(uri).equals(TABLE)
        assert storage.read_table(uri, ["count"]).column_names == ["count"]
        assert storage.table_schema(uri).equals(TABLE.schema)
        assert pq.read_metadata(uri).row_group(0).column(0).compression == "ZSTD"

    @pytest.mark.parametrize("content", [None, b"", b"PAR1 but not really PAR1"])
    def test_what_is_no_table_is_named(self, tmp_path: Path, content: bytes | None) -> None:
        uri = str(tmp_path / "table.parquet")
        if content is not None:
            storage.write_bytes(uri, content)
        with pytest.raises(BadInputError, match="table.parquet"):
            storage.read_table(uri)
        with pytest.raises(BadInputError, match="cannot read the Parquet table .*"):
            storage.table_schema(uri)

    def test_an_absent_column_is_named(self, tmp_path: Path) -> None:
        uri = str(tmp_path / "table.parquet")
        storage.write_table(uri, TABLE)
        with pytest.raises(BadInputError, match="weight"):
            storage.read_table(uri, ["weight"])


@pytest.mark.parametrize(
    ("place", "folder", "expected"),
    [
        ("s3://bucket/faces/out?region=eu-1", "s3://bucket/faces?region=eu-1", True),
        ("s3://bucket/faces-out?region=eu-1", "s3://bucket/faces?region=eu-1", False),
        ("/bucket/faces", "s3://bucket/faces?region=eu-1", False),
        ("nosuch://faces/out", "faces", False),
        ("/tmp", "/", True),
    ],
)
def test_what_lies_within_a_folder(place: str, folder: str, expected: bool) -> None:
    assert storage.is_within(place, folder) == expected

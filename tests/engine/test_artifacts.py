import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
from ray.data.datasource import WriteResult

from cldmray import storage
from cldmray.arrays import Images
from cldmray.engine import artifacts
from cldmray.engine.artifacts import (
    MANIFEST,
    Artifact,
    Manifest,
    RecordsSink,
    block_count,
    commit,
    commit_parts,
    read_manifest,
    write_records,
)
from cldmray.engine.cluster import EngineConfig
from cldmray.errors import BadInputError
from cldmray.faces.records import (
    ANONYMIZED,
    EVALUATION,
    FACES,
    REJECTED,
    embeddings_schema,
    encode_images,
)


def rows(*numbers: int, **extra: list[Any]) -> pa.Table:
    return pa.table(
        {
            "sample_id": [f"{number:04d}" for number in numbers],
            "identity": [f"person {number // 2}" for number in numbers],
            "split": [EVALUATION if number % 3 else "attacker" for number in numbers],
            "image": [bytes([number]) for number in numbers],
            **extra,
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "stage")


class TestSink:
    def test_commits_what_the_tasks_wrote(self, write_table: Any, folder: str) -> None:
        table = write_table(folder, FACES, [[rows(3, 1), rows(2)], [], [rows(0)]])
        assert table.manifest.rows == 4
        assert list(table.manifest.files.values()) == [4]
        assert sorted(*table.manifest.row_groups.values()) == [1, 1, 2]
        assert table.manifest.splits == {EVALUATION: 2, "attacker": 2}
        assert table.manifest.rejected == 0
        whole = table.read()
        assert whole.schema.equals(FACES)
        assert whole.equals(rows(0, 1, 2, 3).cast(FACES))
        assert table.rejected().equals(REJECTED.empty_table())

    def test_nothing_is_visible_before_the_commit(self, folder: str) -> None:
        RecordsSink(folder, FACES).write([rows(1, 2)], None)
        assert len(storage.list_files(folder)) == 1
        assert read_manifest(folder) is None

    def test_a_retried_task_counts_once(self, folder: str) -> None:
        sink = RecordsSink(folder, FACES)
        sink.write([rows(1, 2), rows(3)], None)
        again = sink.write([rows(1, 2), rows(3)], None)
        sink.on_write_complete(WriteResult(3, 0, [again]))
        commit_parts(sink)
        manifest = read_manifest(folder)
        assert manifest is not None
        assert manifest.rows == 3
        assert len(storage.list_files(folder)) == 1 + len([MANIFEST])
        assert Artifact(folder, manifest, "").read().num_rows == 3

    def test_files_tell_of_rows_alone(self, write_table: Any, tmp_path: Path) -> None:
        orders: list[list[list[pa.Table]]] = [
            [[rows(3, 1), rows(2)], [rows(0, 4)]],
            [[rows(4, 0)], [rows(2)], [rows(1, 3)]],
        ]
        bad = rows(5, 6, reason=["", "empty file"], location=["a", "b"])
        written = []
        for number, tasks in enumerate(orders):
            folder = tmp_path / str(number)
            table = write_table(str(folder), FACES, [*tasks, [bad]][:: 1 - 2 * number])
            assert table.manifest.rows == 6
            written.append({path.name: path.read_bytes() for path in folder.iterdir()})
        assert written[0] == written[1]
        assert len(written[0]) == 1 + len([MANIFEST, "rejected.parquet"])

    def test_what_a_killed_driver_left_is_swept(self, write_table: Any, folder: str) -> None:
        RecordsSink(folder, FACES).write([rows(1), rows(2)], None)
        storage.write_bytes(f"{folder}/part-1.parquet.0.partial", b"half")
        storage.write_bytes(f"{folder}/checkpoints/state", b"of a training")
        (file,) = write_table(folder, FACES, [[rows(1, 2)]]).manifest.files
        kept = {Path(info.path).name for info in storage.list_files(folder)}
        assert kept == {MANIFEST, file, "state"}

    def test_small_files_are_gathered_up_to_a_size(
        self, write_table: Any, folder: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        blocks = [rows(*range(start, start + 3)).cast(FACES) for start in range(0, 27, 3)]
        size = blocks[0].nbytes
        monkeypatch.setattr(artifacts, "FILE_BYTES", 4.5 * size)
        table = write_table(folder, FACES, [blocks])
        assert sorted(table.manifest.files.values()) == [3, 12, 12]
        assert list(table.manifest.row_groups.values()) == [[3] * 4] * 2
        assert {block.rows for block in table.blocks()} == {3}
        assert len(table.blocks()) == 9
        assert table.read().equals(rows(*range(27)).cast(FACES))
        assert table.read(split="attacker")["sample_id"].to_pylist() == [
            f"{number:04d}" for number in range(0, 27, 3)
        ]
        assert len(storage.list_files(folder)) == 3 + len([MANIFEST])

    def test_a_gathering_that_is_repeated_finds_what_it_wrote(self, folder: str) -> None:
        sink = RecordsSink(folder, FACES)
        parts = sink.write([rows(1, 2), rows(3)], None)
        first = artifacts._gathered(folder, parts)
        files = [info.path for info in storage.list_files(folder)]
        content = [Path(file).read_bytes() for file in files]
        assert len(files) == 1
        assert artifacts._gathered(folder, parts) == first
        assert [Path(file).read_bytes() for file in files] == content
        sink.write([rows(1, 2), rows(3)], None)
        assert artifacts._gathered(folder, parts) == first
        assert [info.path for info in storage.list_files(folder)] == files

    def test_large_blocks_of_the_same_rows_are_all_there(
        self, write_table: Any, folder: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(artifacts, "FILE_BYTES", 1)
        table = write_table(folder, FACES, [[rows(1), rows(2), rows(1)]])
        assert table.read()["sample_id"].to_pylist() == ["0001"] * 2 + ["0002"]

    def test_blocks_of_the_same_rows_are_all_there(self, write_table: Any, folder: str) -> None:
        table = write_table(folder, FACES, [[rows(1), rows(1)], [rows(1), rows(2)]])
        assert table.read()["sample_id"].to_pylist() == ["0001"] * 3 + ["0002"]

    def test_rejected_rows_are_listed_apart(self, write_table: Any, folder: str) -> None:
        block = rows(2, 1, 0, reason=["truncated", "", "empty"], location=["c", "b", "a"])
        table = write_table(folder, FACES, [[block]])
        assert table.manifest.rows == 1
        assert table.manifest.rejected == 2
        assert table.read()["sample_id"].to_pylist() == ["0001"]
        assert table.rejected().to_pylist() == [
            {"sample_id": "0000", "identity": "person 0", "location": "a", "reason": "empty"},
            {"sample_id": "0002", "identity": "person 1", "location": "c", "reason": "truncated"},
        ]

    def test_all_rejected(self, write_table: Any, folder: str) -> None:
        block = rows(1, reason=["empty"], location=["b"])
        table = write_table(folder, FACES, [[block]])
        assert table.manifest.files == {}
        assert table.rejected().num_rows == 1

    def test_further_columns_are_dropped_and_types_cast(
        self, write_table: Any, folder: str
    ) -> None:
        block = rows(1, extra=["x"]).cast(
            pa.schema([(name, pa.large_string()) for name in ("sample_id", "identity", "split")])
            .append(pa.field("image", pa.large_binary()))
            .append(pa.field("extra", pa.string()))
        )
        assert write_table(folder, FACES, [[block]]).read().schema.equals(FACES)

    def test_a_missing_value_is_refused(self, write_table: Any, folder: str) -> None:
        block = rows(1).set_column(3, "image", pa.array([None], pa.binary()))
        with pytest.raises(ValueError, match="image"):
            write_table(folder, FACES, [[block]])
        assert read_manifest(folder) is None


class TestTwoRuns:
    """Two runs of one stage, interleaved by hand; ``first`` commits before ``second``."""

    @staticmethod
    def begun(folder: str) -> RecordsSink:
        """A run that began a second ago: the clock of files may lag behind by milliseconds."""
        sink = RecordsSink(folder, FACES)
        sink.started_ns -= 10**9
        return sink

    @pytest.fixture
    def first(self, folder: str) -> RecordsSink:
        return self.begun(folder)

    @pytest.fixture
    def second(self, folder: str) -> RecordsSink:
        return self.begun(folder)

    @staticmethod
    def write(sink: RecordsSink, *blocks: pa.Table) -> None:
        sink.parts += sink.write(blocks, None)

    @staticmethod
    def check(folder: str, *numbers: int) -> None:
        """The table has those rows, and nothing lies beside its files."""
        manifest = read_manifest(folder)
        assert manifest is not None
        assert Artifact(folder, manifest, "").read().equals(rows(*numbers).cast(FACES))
        names = {Path(info.path).name for info in storage.list_files(folder)}
        assert names == {MANIFEST, *manifest.files}

    @pytest.mark.parametrize("last", [3, 4])
    @pytest.mark.parametrize("file_bytes", [1, artifacts.FILE_BYTES])
    def test_the_second_takes_the_table_of_the_first(
        self,
        folder: str,
        first: RecordsSink,
        second: RecordsSink,
        monkeypatch: pytest.MonkeyPatch,
        last: int,
        file_bytes: int,
    ) -> None:
        monkeypatch.setattr(artifacts, "FILE_BYTES", file_bytes)
        self.write(second, rows(1), rows(2))
        self.write(first, rows(1), rows(2), rows(3))
        commit_parts(first)
        left = [name for name in map(str, Path(folder).iterdir()) if second.token in name]
        assert len(left) == 2
        self.write(second, rows(last))
        commit_parts(second)
        self.check(folder, 1, 2, 3)

    @pytest.mark.parametrize("last", [3, 4])
    @pytest.mark.parametrize("file_bytes", [1, artifacts.FILE_BYTES])
    @pytest.mark.parametrize("is_before", [True, False])
    def test_a_commit_while_the_other_gathers(
        self,
        folder: str,
        first: RecordsSink,
        second: RecordsSink,
        monkeypatch: pytest.MonkeyPatch,
        last: int,
        file_bytes: int,
        is_before: bool,
    ) -> None:
        monkeypatch.setattr(artifacts, "FILE_BYTES", file_bytes)
        self.write(first, rows(1), rows(2), rows(3))
        self.write(second, rows(1), rows(2), rows(last))

        def run(gather: Any, groups: Any) -> Any:
            if is_before:
                commit_parts(first)
            gathered = list(map(gather, groups))
            if not is_before:
                commit_parts(first)
            return gathered

        commit_parts(second, run)
        self.check(folder, 1, 2, 3)

    def test_a_commit_while_the_other_writes_a_file(
        self, folder: str, first: RecordsSink, second: RecordsSink
    ) -> None:
        self.write(first, rows(1))

        def blocks() -> Any:
            yield rows(2)
            commit_parts(first)
            yield rows(3)

        storage.write_blocks(f"{folder}/part-0_{second.token}.parquet", blocks())
        commit_parts(second)
        self.check(folder, 1)

    def test_a_run_that_began_before_the_other_and_is_overtaken(self, folder: str) -> None:
        slow = RecordsSink(folder, FACES)
        self.write(slow, rows(1), rows(2), rows(5, reason=["empty"], location=["a"]))

        def run(gather: Any, groups: Any) -> Any:
            fast = RecordsSink(folder, FACES)
            self.write(fast, rows(1), rows(2))
            commit_parts(fast)
            return map(gather, groups)

        commit_parts(slow, run)
        self.check(folder, 1, 2)

    def test_an_error_stays_one_where_nobody_has_committed(
        self, folder: str, first: RecordsSink
    ) -> None:
        self.write(first, rows(1), rows(2))
        for info in storage.list_files(folder):
            storage.delete(info.path)
        with pytest.raises(BadInputError, match="part-"):
            commit_parts(first)
        assert read_manifest(folder) is None


class TestContent:
    def test_depends_on_the_rows_alone(self, write_table: Any, tmp_path: Path) -> None:
        divisions: list[list[list[pa.Table]]] = [
            [[rows(0, 1, 2, 3)]],
            [[rows(3), rows(1, 0)], [rows(2)]],
            [[rows(0, 1, 2, 3).cast(FACES), rows()]],
        ]
        results = {
            write_table(str(tmp_path / str(number)), FACES, tasks).manifest.content
            for number, tasks in enumerate(divisions)
        }
        assert len(results) == 1
        assert len(results.pop()) == 32

    def test_sees_every_difference(self, write_table: Any, tmp_path: Path) -> None:
        swapped = rows(0, 1).set_column(3, "image", pa.array([b"\x01", b"\x00"]))
        tables = [rows(0), rows(0, 1), rows(0, 1, 1), rows(0, 2), swapped, rows()]
        results = {
            write_table(str(tmp_path / str(number)), FACES, [[table]]).manifest.content
            for number, table in enumerate(tables)
        }
        assert len(results) == len(tables)

    def test_is_that_of_each_value_bytes(self, write_table: Any, tmp_path: Path) -> None:
        table = rows(129).set_column(3, "image", pa.array([b"\x01\x02"]))
        expected = hashlib.sha256()
        for value in (b"person 64", b"\x01\x02", b"0129", b"attacker"):
            expected.update(len(value).to_bytes(8, "little") + value)
        written = write_table(str(tmp_path / "one"), FACES, [[table]]).manifest
        assert written.content == expected.hexdigest()[:32]

    def test_of_slices_vectors_and_missing_values(self, write_table: Any, tmp_path: Path) -> None:
        vectors = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 0.0, 0.5, 2.0], pa.float32()), 2)
        schema = pa.schema([*embeddings_schema(2), pa.field("note", pa.string())])
        table = pa.table(
            {
                **_pick(rows(1, 2)),
                "view": ["blur"] * 2,
                "embedding": vectors,
                "note": pa.array([None, "x"]),
            }
        )
        whole = write_table(str(tmp_path / "whole"), schema, [[table]]).manifest
        halves = write_table(str(tmp_path / "halves"), schema, [[table[1:], table[:1]]]).manifest
        first = write_table(str(tmp_path / "first"), schema, [[table[:1]]]).manifest
        assert whole.content == halves.content != first.content


class TestRead:
    def test_sorts_by_sample_and_draw(self, write_table: Any, folder: str) -> None:
        tasks = [
            [
                rows(2, 1).append_column("sample", pa.array([sample] * 2, pa.int32()))
                .append_column("seed", pa.array([7, 8]))
                .append_column("anonymizer", pa.array(["blur"] * 2))
            ]
            for sample in (1, 0, 2)
        ]  # fmt: skip
        result = write_table(folder, ANONYMIZED, tasks).read(["sample_id", "sample"])
        assert result.column_names == ["sample_id", "sample"]
        assert result["sample_id"].to_pylist() == ["0001"] * 3 + ["0002"] * 3
        assert result["sample"].to_pylist() == [0, 1, 2] * 2

    def test_reads_no_images_where_none_are_asked_for(
        self, write_table: Any, folder: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        table = write_table(folder, FACES, [[rows(3, 1)], [rows(2, 0)]])
        seen: list[list[str] | None] = []
        read = storage.read_table

        def spy(uri: str, columns: list[str] | None = None, groups: Any = None) -> pa.Table:
            seen.append(columns)
            return read(uri, columns, groups)

        monkeypatch.setattr(storage, "read_table", spy)
        result = table.read(["identity"], EVALUATION)
        assert result.to_pydict() == {"identity": ["person 0", "person 1"]}
        assert seen == [["split"], ["identity", "sample_id", "split"]]

    def test_sorts_embeddings_by_view(self, write_table: Any, folder: str) -> None:
        vectors = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 0.0] * 2, pa.float32()), 2)
        tasks = [
            [pa.table({**_pick(rows(1, 2)), "view": [view] * 2, "embedding": vectors})]
            for view in ("original", "blur", "no_op")
        ]
        result = write_table(folder, embeddings_schema(2), tasks).read()
        assert result["view"].to_pylist() == ["blur", "no_op", "original"] * 2

    def test_a_table_without_samples(self, folder: str) -> None:
        curve = pa.table({"step": [1, 2], "loss": [0.5, 0.25]})
        storage.write_table(storage.join(folder, "curve.parquet"), curve)
        table = Artifact(folder, Manifest({"curve.parquet": 2}), "")
        assert table.read().equals(curve)

    def test_one_split(self, write_table: Any, folder: str) -> None:
        table = write_table(folder, FACES, [[rows(0, 1)], [rows(2, 3)]])
        assert table.read(split="attacker")["sample_id"].to_pylist() == ["0000", "0003"]
        assert table.count("attacker") == 2
        assert table.read(split="background").num_rows == 0
        assert table.count("background") == 0

    def test_images_are_prepared_a_few_at_a_time_in_that_order(
        self, write_table: Any, folder: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(artifacts, "DECODED_AT_ONCE", 2)
        numbers = [[7, 1, 6, 3], [0, 9, 12]]
        tables = [
            rows(*part).set_column(
                3,
                "image",
                [encode_images(np.full((len(part), 2, 2, 3), [[[[n]]] for n in part], np.uint8))],
            )
            for part in numbers
        ]
        table = write_table(folder, FACES, [[part] for part in tables])
        seen = []

        def halved(images: Images) -> Images:
            seen.append(len(images))
            return images[:, :1, :1] * 2

        images = table.images("attacker", halved)
        assert images.shape == (5, 1, 1, 3)
        assert images[:, 0, 0, 0].tolist() == [0, 6, 12, 18, 24]
        assert max(seen) == 2
        assert table.images("background", halved).shape == (0, 0, 0, 3)

    def test_an_empty_table_is_named(self, write_table: Any, folder: str) -> None:
        table = write_table(folder, FACES, [[rows()]])
        assert table.manifest.rows == 0
        assert table.count("attacker") == 0
        with pytest.raises(BadInputError, match="stage: the table is empty"):
            table.read()
        with pytest.raises(BadInputError, match="stage: the table is empty"):
            table.stream(FACES.names, 16)

    def test_a_lost_file_is_named(self, write_table: Any, folder: str) -> None:
        table = write_table(folder, FACES, [[rows(0)]])
        (file,) = table.manifest.files
        Path(folder, file).unlink()
        with pytest.raises(BadInputError, match=file):
            table.read()


class TestBlocks:
    @pytest.mark.parametrize(
        ("count", "block_rows", "expected"),
        [(1, 256, 1), (32, 256, 1), (33, 256, 2), (500, 256, 16), (9000, 256, 36), (40, 7, 6)],
    )
    def test_count(self, count: int, block_rows: int, expected: int) -> None:
        assert block_count(count, block_rows) == expected


class TestManifest:
    def test_round_trip(self, folder: str) -> None:
        manifest = Manifest({"a": 3, "b": 4}, "ab" * 16, 2, {EVALUATION: 7}, {"b": [1, 3]})
        commit(folder, manifest)
        assert read_manifest(folder) == manifest
        assert manifest.rows == 7

    def test_absent(self, folder: str) -> None:
        assert read_manifest(folder) is None

    def test_a_damaged_one_is_named(self, folder: str) -> None:
        storage.write_bytes(storage.join(folder, MANIFEST), b'{"files": [')
        with pytest.raises(BadInputError, match="manifest.json"):
            read_manifest(folder)


def _pick(table: pa.Table) -> dict[str, Any]:
    return {name: table[name] for name in ("sample_id", "identity")}


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
class TestRay:
    @pytest.mark.parametrize("name", ["stage", "split=x sample=7 %20ü"])
    def test_written_and_streamed_back(
        self, tmp_path: Path, engine: EngineConfig, name: str
    ) -> None:
        folder = str(tmp_path / name)
        whole = rows(*range(100))
        stream = ray.data.from_arrow([whole[:30], whole[30:]])
        write_records(stream, folder, FACES)
        manifest = read_manifest(folder)
        assert manifest is not None
        table = Artifact(folder, manifest, "")
        assert table.read().equals(whole.cast(FACES))
        back = table.stream(["split", "sample_id"], 16)
        sizes = [
            row["rows"]
            for row in back.map_batches(
                lambda block: {"rows": [len(block["split"])]}, batch_size=None, num_cpus=0.5
            ).take_all()
        ]
        assert sum(sizes) == 100
        assert max(sizes) <= 16
        assert back.schema().names == ["split", "sample_id"]
        results = sorted(back.take_all(), key=lambda row: row["sample_id"])
        assert results == whole.select(["split", "sample_id"]).to_pylist()

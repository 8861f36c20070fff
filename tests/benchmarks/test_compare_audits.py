"""The comparison of two audits: which rows differ, and by how much."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import compare_audits


def row(anonymizer: str, attacker: str, value: float, **others: Any) -> dict[str, Any]:
    return {
        "anonymizer": anonymizer,
        "attacker": attacker,
        "protocol": "full_ref",
        "gallery": "source_excluded",
        "subset": "all",
        "measure": "rank_1",
        "value": value,
    } | others


OLD = [
    row("copy", "adaptive", 0.9),
    row("copy", "adaptive", 4.5, measure="anonymity_set_size"),
    row("blur", "fusion", 0.25),
]


def write(folder: Path, rows: list[dict[str, Any]]) -> str:
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "results.parquet")
    return str(folder)


def new(rate: float = 0.9, rank: float = 4.5) -> list[dict[str, Any]]:
    return [
        row("blur", "score_fusion", 0.25),
        row("no_op", "adaptive_contrastive", rate),
        row("no_op", "adaptive_contrastive", rank, measure="mean_rank"),
    ]


def test_old_names_are_those_of_today(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = write(tmp_path / "a", OLD), write(tmp_path / "b", new())
    assert compare_audits.main([before, after, "--all"]) == 0
    printed = capsys.readouterr().out
    assert "no_op / adaptive_contrastive / full_ref / source_excluded" in printed
    assert "rank-1 rate, 2 rows: 0 differ by more than 1e-06, 0 are in one table alone" in printed
    assert "mean_rank, 1 rows: 0 differ" in printed


@pytest.mark.parametrize(
    ("rows", "options", "status"),
    [
        (new(0.9 + 2e-6), [], 1),
        (new(0.9 + 2e-6), ["--tolerance", "1e-5"], 0),
        (new(rank=5), [], 0),
        (new(rank=5), ["--all"], 1),
        (new()[:1], [], 1),
        ([*new(), row("k_same", "pretrained", 0.1)], [], 1),
        (new(float("nan")), [], 1),
    ],
)
def test_the_status_says_whether_a_number_moved(
    tmp_path: Path,
    rows: list[dict[str, Any]],
    options: list[str],
    status: int,
) -> None:
    before, after = write(tmp_path / "a", OLD), write(tmp_path / "b", rows)
    assert compare_audits.main([before, f"{after}/results.parquet", *options]) == status


def test_tables_without_a_rate_are_no_proof(tmp_path: Path) -> None:
    empty = [row("blur", "score_fusion", 1.0, measure="eer")]
    before, after = write(tmp_path / "a", empty), write(tmp_path / "b", empty)
    assert compare_audits.main([before, after]) == 1


def test_a_table_of_version_1_is_compared_with_one_of_version_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [{**each, "level": "image", "reason": None} for each in new()]
    pooled = row("no_op", "adaptive_contrastive", 1.0, level="person", reason=None)
    fresh = row("blur", "score_fusion", 0.5, measure="rank_50", level="image", reason=None)
    before = write(tmp_path / "a", OLD)
    assert (
        compare_audits.main([before, write(tmp_path / "b", [*images, pooled, fresh]), "--all"]) == 0
    )
    assert (
        "different schema versions; measures of both: mean_rank, rank_1" in capsys.readouterr().out
    )
    images[0]["value"] += 0.1
    assert (
        compare_audits.main([before, write(tmp_path / "c", [*images, pooled, fresh]), "--all"]) == 1
    )


def test_an_empty_value_equals_an_empty_value_only(tmp_path: Path) -> None:
    empty = [*new(), row("blur", "score_fusion", 0.0, measure="eer") | {"value": None}]
    before, after = write(tmp_path / "a", empty), write(tmp_path / "b", empty)
    assert compare_audits.main([before, after, "--all"]) == 0
    empty[-1]["value"] = 0.5
    assert compare_audits.main([before, write(tmp_path / "c", empty), "--all"]) == 1


def test_a_row_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    twice = write(tmp_path / "a", [OLD[0], new()[1]])
    with pytest.raises(ValueError, match="holds a row twice: no_op / adaptive_contrastive"):
        compare_audits.main([twice, twice])

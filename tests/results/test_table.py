"""Results tables: JSON and Parquet hold the same rows, and reruns the same bytes."""

import json

import numpy as np
import pyarrow as pa
import pytest

from cldmray.errors import BadInputError
from cldmray.results.schema import SCHEMA_VERSION
from cldmray.results.table import RESULTS, sorted_results, write_results
from cldmray.storage import read_table


def replaced(table, column, values):
    index = table.column_names.index(column)
    return table.set_column(index, column, pa.array(values))


def test_json_equals_parquet_to_the_last_bit(report, tmp_path):
    awkward = np.nextafter(np.linspace(0, 1, report.results.num_rows), 2) / 3
    table = replaced(report.results, "value", awkward)
    parquet, text = write_results(table, str(tmp_path / "out"))
    stored = read_table(parquet)
    assert stored.schema.equals(RESULTS)
    whole = json.loads((tmp_path / "out" / "results.json").read_text())
    assert whole["schema_version"] == SCHEMA_VERSION
    rows = whole["rows"]
    assert text.endswith("results.json")
    assert rows == stored.to_pylist()
    assert all(list(row) == RESULTS.names for row in rows)
    assert sorted(row["value"] for row in rows) == sorted(awkward.tolist())


def test_order_of_rows_and_columns_changes_no_byte(report, tmp_path):
    table = report.results
    order = np.random.default_rng(0).permutation(table.num_rows)
    shuffled = table.take(order).select(table.column_names[::-1])
    write_results(table, str(tmp_path / "a"))
    write_results(pa.concat_tables([shuffled[:9], shuffled[9:]]), str(tmp_path / "b"))
    for name in ("results.parquet", "results.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_odd_names_survive(report, tmp_path):
    table = report.results.slice(0, 1)
    table = replaced(table, "anonymizer", ['é "x" </script>\n'])
    write_results(table, str(tmp_path))
    assert json.loads((tmp_path / "results.json").read_text())["rows"] == table.to_pylist()


def test_no_rows_is_an_empty_list(report, tmp_path):
    write_results(report.results.slice(0, 0), str(tmp_path))
    assert json.loads((tmp_path / "results.json").read_text())["rows"] == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, None])
def test_values_that_json_cannot_hold_are_refused(report, bad, tmp_path):
    values = report.results["value"].to_pylist()
    table = replaced(report.results, "value", [bad, *values[1:]])
    with pytest.raises(BadInputError, match="results"):
        write_results(table, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("column", ["value", "ci_low", "ci_high", "chance"])
def test_a_number_is_empty_only_with_a_reason(report, column):
    first = report.results.slice(0, 1)
    empty = replaced(first, column, pa.array([None], pa.float64()))
    with pytest.raises(BadInputError, match="without a reason"):
        sorted_results(empty)
    with_reason = replaced(empty, "reason", ["4 non-mated scores cannot support an FMR of 0.1 %"])
    (row,) = sorted_results(with_reason).to_pylist()
    assert row[column] is None and row["reason"].startswith("4 non-mated")
    with pytest.raises(BadInputError, match="a reason without one"):
        sorted_results(replaced(first, "reason", ["there is nothing to explain"]))


def test_a_count_or_a_name_is_never_empty(report):
    first = report.results.slice(0, 1)
    for column, kind in (("level", pa.string()), ("n_non_mated", pa.int64())):
        with pytest.raises(BadInputError, match=r"empty value|schema"):
            sorted_results(replaced(first, column, pa.array([None], kind)))


def test_the_level_tells_rows_apart(report):
    pooled = replaced(report.results.slice(0, 1), "level", ["person"]).cast(RESULTS)
    ordered = sorted_results(pa.concat_tables([report.results, pooled])).to_pylist()
    assert sorted({row["level"] for row in ordered}) == ["image", "person"]


def test_a_row_that_occurs_twice_is_refused(report):
    table = pa.concat_tables([report.results, report.results.slice(3, 1)])
    with pytest.raises(BadInputError, match="twice"):
        sorted_results(table)


def test_the_subset_tells_rows_apart(report):
    group = replaced(report.results.slice(0, 1), "subset", ["sex=female"]).cast(RESULTS)
    ordered = sorted_results(pa.concat_tables([report.results, group])).to_pylist()
    assert sorted({row["subset"] for row in ordered}) == ["all", "sex=female"]
    assert len(ordered) == report.results.num_rows + 1


def test_another_schema_is_refused(report):
    with pytest.raises(BadInputError, match="columns"):
        sorted_results(report.results.drop_columns(["chance"]))
    formatting = ["many"] * report.results.num_rows
    with pytest.raises(BadInputError, match="schema"):
        sorted_results(replaced(report.results, "value", formatting))

"""Compares two audits row by row: did a change of the code move a number?

    python benchmarks/compare_audits.py BEFORE AFTER [--all] [--tolerance 1e-6]

BEFORE and AFTER are output folders of audits, or their ``results.parquet``. Prints for every
anonymizer, attacker, protocol and gallery the rank-1 identification rate of both and the
difference; ``--all`` adds the other measures and subsets. Ends with status 1 if a difference
exceeds the tolerance or a row is in one table alone. Rows of level ``person`` are left out.

The default audit before and after a change, with the same seeds::

    git worktree add ../before eb4deac
    (cd ../before && make audit ARGS='output=runs/compared')
    make audit ARGS='output=runs/compared'
    python benchmarks/compare_audits.py ../before/runs/compared runs/compared

Tables of commit eb4deac and before it have other names for the same things: ``RENAMED`` translates
them. Where the two tables have different schema versions, only measures of both are compared.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

KEYS = ("anonymizer", "attacker", "protocol", "gallery", "subset", "measure")
RENAMED: Mapping[str, Mapping[str, str]] = {
    "anonymizer": {"copy": "no_op", "pictures": "precomputed"},
    "attacker": {
        "off_the_shelf": "pretrained",
        "clear_trained": "clean_trained",
        "edge_match": "condition_match",
        "edge_proxy": "condition_only",
        "edge_proxy_teacher": "condition_only_distilled",
        "adaptive": "adaptive_contrastive",
        "adaptive_teacher": "adaptive_distilled",
        "adaptive_edges": "adaptive_condition",
        "fusion": "score_fusion",
        "inversion": "reconstruction",
    },
    "measure": {
        "anonymity_set_size": "mean_rank",
        "anonymity_set_median": "median_rank",
        "anonymity_set_p10": "p10_rank",
        "anonymity_set_person_median": "median_rank_by_identity",
        "anonymity_set_person_p10": "p10_rank_by_identity",
        "largest_k_not_rejected": "k_not_rejected",
    },
}
"""Names of commit eb4deac by column, and what they are now."""
RATE, ALL, IMAGE_LEVEL = "rank_1", "all", "image"

Key = tuple[str, ...]


class Comparison(NamedTuple):
    """One row of both tables.

    Attributes:
        key: values of ``KEYS``.
        before, after: the measure; None where the row is absent or null.
    """

    key: Key
    before: float | None
    after: float | None

    def differs(self, tolerance: float) -> bool:
        """Whether the values are further apart than the tolerance, or one is absent."""
        if self.before is None or self.after is None:
            return self.before is not self.after
        return not abs(self.after - self.before) <= tolerance


def read_values(path: Path) -> dict[Key, float | None]:
    """The value of every row of images of a table of results, by today's names; None where null.

    Args:
        path: ``results.parquet`` or the folder that holds it.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a row is there twice.
    """
    file = _file(path)
    values: dict[Key, float | None] = {}
    for row in pq.read_table(file).to_pylist():
        if row.get("level", IMAGE_LEVEL) != IMAGE_LEVEL:
            continue
        key = tuple(RENAMED.get(name, {}).get(row[name], row[name]) for name in KEYS)
        if key in values:
            raise ValueError(f"{file} holds a row twice: {' / '.join(key)}")
        values[key] = row["value"]
    return values


def has_level(path: Path) -> bool:
    """Whether a table of results is of schema version 2 or later, whose rows have a level."""
    return "level" in pq.read_schema(_file(path)).names


def _file(path: Path) -> Path:
    return path / "results.parquet" if path.is_dir() else path


def of_measures(values: Mapping[Key, float | None], measures: set[str]) -> dict[Key, float | None]:
    """The rows of some measures."""
    return {key: value for key, value in values.items() if key[-1] in measures}


def is_rate(key: Key) -> bool:
    """Whether a row is the rank-1 rate over all probes."""
    return key[KEYS.index("subset")] == ALL and key[KEYS.index("measure")] == RATE


def compared(
    before: Mapping[Key, float | None], after: Mapping[Key, float | None]
) -> list[Comparison]:
    """All rows of either table, sorted by their keys."""
    return [Comparison(key, before.get(key), after.get(key)) for key in sorted({*before, *after})]


def table(comparisons: Iterable[Comparison], tolerance: float) -> str:
    """The rows as text; ``!`` marks one that differs."""
    rows = list(comparisons)
    names = [" / ".join(part for part in row.key if part not in (ALL, RATE)) for row in rows]
    width = max(map(len, names), default=0)
    lines = [f"{'':{width}}  {'before':>10} {'after':>10} {'difference':>12}"]
    for name, row in zip(names, rows, strict=True):
        cells = ["-" if value is None else f"{value:.6f}" for value in (row.before, row.after)]
        gap = "" if "-" in cells else f"{row.after - row.before:+.2e}"  # type: ignore[operator]
        mark = " !" if row.differs(tolerance) else ""
        lines.append(f"{name:{width}}  {cells[0]:>10} {cells[1]:>10} {gap:>12}{mark}")
    return "\n".join(lines)


def verdict(comparisons: Iterable[Comparison], tolerance: float) -> str:
    """How many rows differ, by measure, and the largest difference."""
    rows = list(comparisons)
    gaps = [
        abs(row.after - row.before)
        for row in rows
        if row.before is not None and row.after is not None
    ]
    absent = sum((row.before is None) != (row.after is None) for row in rows)
    beyond = sum(row.differs(tolerance) for row in rows) - absent
    largest = max(gaps, default=0.0)
    return (
        f"{len(rows)} rows: {beyond} differ by more than {tolerance:g}, {absent} are in one table "
        f"alone; largest difference {largest:.2e}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Print the comparison; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("before", type=Path, help="output folder or results.parquet")
    parser.add_argument("after", type=Path, help="output folder or results.parquet")
    parser.add_argument("--all", action="store_true", help="every measure and subset")
    parser.add_argument("--tolerance", type=float, default=1e-6)
    given = parser.parse_args(arguments)
    before, after = read_values(given.before), read_values(given.after)
    if has_level(given.before) != has_level(given.after):
        measures = {key[-1] for key in before} & {key[-1] for key in after}
        print(f"different schema versions; measures of both: {', '.join(sorted(measures))}")
        before, after = of_measures(before, measures), of_measures(after, measures)
    rows = compared(before, after)
    rates = [row for row in rows if is_rate(row.key)]
    print(table(rates, given.tolerance))
    print(f"rank-1 rate, {verdict(rates, given.tolerance)}")
    checked = rows if given.all else rates
    if given.all:
        others = [row for row in rows if not is_rate(row.key)]
        if differing := [row for row in others if row.differs(given.tolerance)]:
            print(table(differing, given.tolerance))
        for measure in sorted({row.key[-1] for row in others}):
            of_measure = [row for row in others if row.key[-1] == measure]
            print(f"{measure}, {verdict(of_measure, given.tolerance)}")
    return int(not checked or any(row.differs(given.tolerance) for row in checked))


if __name__ == "__main__":
    sys.exit(main())

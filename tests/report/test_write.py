"""The folder of a report holds every file, and a rerun writes the same bytes."""

import json

from cldmray.report.write import write_report
from cldmray.storage import read_table

FILES = {
    "results.parquet",
    "results.json",
    "rejected.parquet",
    "images.parquet",
    "report.json",
    "verdict.json",
    "report.html",
    "figures/risk.png",
    "figures/cmc.png",
    "figures/images.png",
}


def content(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_all_files_are_written(report, tmp_path):
    written = write_report(report, str(tmp_path))
    assert set(content(tmp_path)) == FILES
    assert written[-1].endswith("report.html")
    assert {path.removeprefix(f"{tmp_path}/") for path in written} == FILES
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert verdict == {"sentence": report.verdict.sentence, **report.verdict.machine}
    assert read_table(str(tmp_path / "rejected.parquet")).equals(report.rejected)


def test_a_rerun_writes_the_same_bytes(report, tmp_path):
    write_report(report, str(tmp_path / "a"))
    write_report(report, str(tmp_path / "b"))
    assert content(tmp_path / "a") == content(tmp_path / "b")

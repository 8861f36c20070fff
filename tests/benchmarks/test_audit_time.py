"""The table of an audit's time, and two of them side by side."""

from benchmarks import audit_time


def test_work_is_laid_out_beside_wall_time() -> None:
    stages = [
        audit_time.StageUse("read faces", 5.0, 20.0, 30.0),
        audit_time.StageUse("embed blur", 30.0, 10.0, 12.0),
    ]
    taken = audit_time.AuditTime(
        stages, wall=100.0, driver=20.0, ray=7.0, startup=9.0, tasks=8.0, workers=4, others=3.0,
        cores=2,
    )  # fmt: skip
    assert (taken.useful, taken.total, taken.ideal) == (70.0, 86.0, 35.0)
    text = audit_time.report(taken)
    assert "read faces" in text and "4 worker processes; 86 CPU-seconds, of which 70 are" in text
    assert (
        "wall 100 s on 2 cores, of which other processes took 3 CPU-seconds; ideal 35 s, of" in text
    )
    assert text.endswith("of which the wall time is 2.86 times")
    lines = audit_time.compare(taken, taken).splitlines()
    assert lines[0].split() == ["CPU-seconds", "before", "after", "ratio"]
    assert all(line.split()[-1] == "1.00" for line in lines[1:])


def test_processes_serve_the_running_stages_of_their_kind() -> None:
    read, embed = audit_time.StageUse("read faces", 0.0), audit_time.StageUse("embed blur", 0.0)
    assert audit_time.kind_of("ray::MapWorker(Embed)", [read, embed]) == [embed]
    assert audit_time.kind_of("ray::IDLE", [read, embed]) == []

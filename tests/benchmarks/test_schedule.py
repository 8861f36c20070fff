"""The simulated schedule: cases computed by hand, and a twin that goes from second to second."""

import numpy as np
import pytest

from benchmarks import schedule
from benchmarks.schedule import Cluster, Stage, simulate


def test_one_core_takes_the_sum_of_the_work() -> None:
    stages = [Stage("read", 3, 2.0), Stage("draw", 2, 5.0, ("read",))]
    outcome = simulate(stages, Cluster(1, 1))
    assert outcome.wall == 16.0 and outcome.ends == {"read": 6.0, "draw": 16.0}


def test_two_cores_take_half_of_equal_tasks() -> None:
    assert simulate([Stage("read", 10, 2.0)], Cluster(1, 2)).wall == 10.0
    assert simulate([Stage("read", 10, 2.0)], Cluster(2, 1)).wall == 10.0
    assert simulate([Stage("read", 11, 2.0)], Cluster(1, 2)).wall == 12.0


def test_every_core_starts_a_process_once() -> None:
    assert simulate([Stage("read", 4, 2.0)], Cluster(1, 2, start=3.0)).wall == 7.0


def test_stages_that_do_not_depend_on_each_other_run_beside() -> None:
    stages = [Stage("a", 1, 4.0), Stage("b", 1, 4.0), Stage("c", 1, 1.0, ("a", "b"))]
    assert simulate(stages, Cluster(1, 2)).wall == 5.0


def test_the_driver_hands_out_one_block_after_the_other() -> None:
    assert simulate([Stage("read", 4, 1.0)], Cluster(4, 1, hand_out=2.0)).wall == 9.0


def test_the_driver_works_on_the_head_alone() -> None:
    assert simulate([Stage("list", 3, 2.0, on_head=True)], Cluster(4, 1)).wall == 6.0


def test_a_loss_repeats_the_block_in_progress_and_no_other() -> None:
    stages = [Stage("read", 4, 10.0)]
    # Node 1 has ended a block at 10 and is lost at 14: the head, free at 20, does that block again.
    outcome = simulate(stages, Cluster(2, 1, replace=100.0, lost_at=[(14.0, 1)]))
    assert (outcome.wall, outcome.repeated, outcome.losses) == (30.0, 4.0, 1)


def test_a_lost_node_comes_back_and_starts_anew() -> None:
    # The head has the driver's work until 100; node 1 loses 4 s, is away for 5, starts in 1.
    stages = [Stage("list", 1, 99.0, on_head=True), Stage("read", 2, 10.0)]
    outcome = simulate(stages, Cluster(2, 1, start=1.0, replace=5.0, lost_at=[(15.0, 1)]))
    assert outcome.ends["read"] == 15 + 5 + 1 + 10 and outcome.repeated == 4.0


def test_an_idle_node_that_is_lost_takes_no_block() -> None:
    stages = [Stage("list", 1, 10.0, on_head=True), Stage("read", 2, 4.0, ("list",))]
    outcome = simulate(stages, Cluster(2, 1, replace=100.0, lost_at=[(5.0, 1)]))
    assert (outcome.wall, outcome.repeated) == (18.0, 0.0)


def test_a_stage_stands_after_those_that_it_waits_for() -> None:
    with pytest.raises(ValueError, match="a stands before b"):
        simulate([Stage("a", 1, 1.0, ("b",)), Stage("b", 1, 1.0)], Cluster(1, 1))


def twin(stages: list[Stage], cores: int) -> int:
    """Wall time on one node, second by second; all durations are whole."""
    to_start = [stage.blocks for stage in stages]
    to_end = [stage.blocks for stage in stages]
    names = [stage.name for stage in stages]
    running: list[tuple[int, int]] = []
    now = 0
    while True:
        for end, number in running:
            to_end[number] -= int(end == now)
        running = [(end, number) for end, number in running if end > now]
        if not any(to_end):
            return now
        for number, stage in enumerate(stages):
            if all(not to_end[names.index(name)] for name in stage.after):
                while to_start[number] and len(running) < cores:
                    to_start[number] -= 1
                    running.append((now + int(stage.seconds), number))
        now += 1


@pytest.mark.parametrize("seed", range(40))
def test_small_schedules_equal_their_twins(seed: int) -> None:
    rng = np.random.default_rng(seed)
    stages: list[Stage] = []
    for number in range(rng.integers(1, 6)):
        after = tuple(stage.name for stage in stages if rng.random() < 0.4)
        blocks, seconds = int(rng.integers(1, 7)), float(rng.integers(1, 6))
        stages.append(Stage(str(number), blocks, seconds, after))
    cores = int(rng.integers(1, 4))
    calm = simulate(stages, Cluster(1, cores))
    assert calm.wall == twin(stages, cores)
    nodes = Cluster(3, cores, losses=600.0, replace=2.0, seed=seed)
    rough = simulate(stages, nodes)
    assert rough == simulate(stages, nodes)
    # All work is done on at most so many cores, what was lost in addition.
    done = sum(stage.cpu_seconds for stage in stages) + rough.repeated
    assert rough.wall >= done / (3 * cores) - 1e-9


def test_losses_come_at_their_rate() -> None:
    cluster = Cluster(11, 1, losses=1.0, replace=0.0)
    outcome = simulate([Stage("read", 1100, 360.0)], cluster)
    # 10 nodes that can be lost, 10 hours, one loss an hour each; half a block is lost at each.
    assert outcome.losses == pytest.approx(100, abs=30)
    assert outcome.repeated / outcome.losses == pytest.approx(180, abs=40)


def test_the_measured_audit_lies_on_the_simulation() -> None:
    audit = schedule.default_audit()
    assert sum(stage.cpu_seconds for stage in audit) == pytest.approx(688, abs=1)
    assert simulate(audit, Cluster(1, 2)).wall == pytest.approx(377, rel=0.03)


def test_the_tables_name_what_is_measured_and_computed() -> None:
    lines = list(schedule.tables(4, 2, 0.05, [(20_000, 256)]))
    assert lines[0].split() == ["two", "cores", "measured", "simulated"]
    assert any("computed" in line and "assumed" in line for line in lines)
    assert lines[-1].split()[0] == "20,000"

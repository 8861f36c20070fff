"""What is asked of a cluster: pools and trainings of a fixed size, and those that grow."""

import signal
import socket
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cldmray.anonymizers.baselines import Blur
from cldmray.anonymizers.k_same import KSame
from cldmray.attackers.condition_match import ConditionMatch
from cldmray.attackers.contrastive import CleanTrained
from cldmray.config.instantiate import build
from cldmray.engine import cluster
from cldmray.engine.artifacts import Artifact, Manifest, commit
from cldmray.engine.attack_context import AttackContext
from cldmray.engine.cluster import EngineConfig, connect
from cldmray.engine.map_stages.faces import load_images, map_rows
from cldmray.engine.stages import Stages
from cldmray.engine.training import torch_trainer, worker_range
from cldmray.errors import ConfigError
from cldmray.faces.synthetic import SyntheticFaces
from cldmray.recognizers.base import Recognizer
from cldmray.recognizers.dlib import DlibResNet
from cldmray.recognizers.sface import SFace

ELASTIC = EngineConfig(
    cpus_per_actor=0.5, actors=2, max_actors=6, train_workers=1, max_train_workers=4
)


class TestPool:
    def test_a_fixed_one_asks_for_its_size(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr("ray.cluster_resources")
        pool = EngineConfig(actors=3).pool()
        assert (pool.min_size, pool.initial_size, pool.max_size) == (3, 3, 3)

    @pytest.mark.parametrize(
        ("there", "expected"),
        [
            ({}, 2),
            ({"CPU": 0.0}, 2),
            ({"CPU": 2.5}, 3),
            ({"CPU": 64.0}, 6),
        ],
    )
    def test_an_elastic_one_begins_with_what_is_there(
        self, monkeypatch: pytest.MonkeyPatch, there: dict[str, float], expected: int
    ) -> None:
        monkeypatch.setattr("ray.cluster_resources", lambda: dict(there))
        pool = ELASTIC.pool()
        assert (pool.min_size, pool.initial_size, pool.max_size) == (2, expected, 6)

    def test_gpus_count_where_actors_need_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 64.0, "GPU": 3.0})
        assert replace(ELASTIC, gpus_per_actor=1.0).pool().initial_size == 3
        assert replace(ELASTIC, gpus_per_actor=0.5).pool().initial_size == 6
        assert replace(ELASTIC, cpus_per_actor=0.0).pool().initial_size == 6


class TestTraining:
    @pytest.mark.parametrize(
        ("least", "most", "expected"), [(2, None, 2), (2, 2, 2), (1, 4, (1, 4))]
    )
    def test_workers(self, least: int, most: int | None, expected: Any) -> None:
        assert worker_range(least, most) == expected

    def test_the_trainer_grows_and_survives(self, tmp_path: Any) -> None:
        engine = replace(ELASTIC, train_failures=7)
        trainer = torch_trainer(lambda config: None, {}, engine, str(tmp_path))
        assert trainer.scaling_config.num_workers == (1, 4)
        assert trainer.run_config.failure_config.max_failures == 7


@pytest.mark.parametrize(
    ("key", "value", "least"),
    [
        ("max_actors", 1, "least actors"),
        ("max_train_workers", 0, "at least 1"),
        ("train_failures", -1, "negative"),
    ],
)
def test_a_wrong_size_is_named(key: str, value: int, least: str) -> None:
    with pytest.raises(ConfigError, match=f"^engine.{key}: .*{least}"):
        build({**asdict(ELASTIC), key: value}, EngineConfig, "engine")


class TestGpus:
    def test_workers_that_hold_no_gpu_see_none(self) -> None:
        for engine in (
            EngineConfig(),
            EngineConfig(env={"A": "1"}),
            EngineConfig(compile_cache="x"),
        ):
            assert engine.worker_environment["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] == "1"
        own = EngineConfig(env={"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"})
        assert own.worker_environment["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] == "0"

    @pytest.mark.parametrize("member", [Blur(), KSame(k=3), ConditionMatch()])
    def test_what_runs_on_the_cpu_only_asks_for_none(self, member: Any) -> None:
        engine = EngineConfig(gpus_per_actor=1.0)
        gpus = member.gpus_per_actor(engine.gpus_per_actor)
        assert gpus == 0
        assert engine.pool_stage(gpus)["GPU"] == 0

    def test_encoders_ask_for_one(self) -> None:
        assert CleanTrained().gpus_per_actor(1.0) == 1

    @pytest.mark.parametrize(("recognizer", "gpus"), [(DlibResNet(), 0.0), (SFace(), 2.0)])
    def test_originals_are_embedded_where_their_recognizer_runs(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recognizer: Recognizer, gpus: float
    ) -> None:
        engine = EngineConfig(gpus_per_actor=1.0)
        faces = Artifact(str(tmp_path), Manifest({}), "0" * 16)
        context = AttackContext(Stages(str(tmp_path)), engine, faces)
        asked: list[Mapping[str, float]] = []
        monkeypatch.setattr(
            context, "_artifact", lambda *_, resources, **__: asked.append(resources)
        )
        context.recognize(recognizer)
        assert [resources["GPU"] for resources in asked] == [gpus]


class TestPostponing:
    """A local Ray starts when something needs it, and everything else is joined at once."""

    @pytest.fixture
    def joined(self, monkeypatch: pytest.MonkeyPatch) -> list[EngineConfig]:
        joined: list[EngineConfig] = []
        monkeypatch.setattr("ray.is_initialized", lambda: False)
        monkeypatch.setattr(cluster, "connect", joined.append)
        monkeypatch.setattr(cluster, "_postponed", None)
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        return joined

    def test_a_local_cluster_starts_once(self, joined: list[EngineConfig]) -> None:
        cluster.prepare(EngineConfig(cpus=2))
        assert joined == []
        cluster.start()
        cluster.start()
        assert joined == [EngineConfig(cpus=2)]

    def test_nothing_starts_unasked(self, joined: list[EngineConfig]) -> None:
        cluster.start()
        assert joined == []

    def test_reading_images_needs_it(
        self, joined: list[EngineConfig], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = SyntheticFaces(n_identities=1, images_per_identity=1, size=32)

        def from_arrow(blocks: Any) -> Any:
            assert joined == [EngineConfig(cpus=2)]
            raise InterruptedError

        monkeypatch.setattr("ray.data.from_arrow", from_arrow)
        for read in (load_images, partial(map_rows, load=dict, block_rows=1)):
            cluster.prepare(EngineConfig(cpus=2))
            with pytest.raises(InterruptedError):
                read(source, source.listing())
            joined.clear()

    def test_another_cluster_is_joined_at_once(
        self, joined: list[EngineConfig], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cluster.prepare(EngineConfig(address="auto"))
        monkeypatch.setenv("RAY_ADDRESS", "head:6379")
        cluster.prepare(EngineConfig())
        assert joined == [EngineConfig(address="auto"), EngineConfig()]

    def test_what_can_never_fit_is_refused_before(self, joined: list[EngineConfig]) -> None:
        with pytest.raises(ConfigError, match=r"engine.train_workers: 3 workers"):
            cluster.prepare(EngineConfig(cpus=1, train_workers=3))

    def test_only_a_stage_that_is_missing_needs_it(
        self, joined: list[EngineConfig], tmp_path: Path
    ) -> None:
        def produce(folder: str) -> None:
            commit(folder, Manifest({}))

        for expected in (1, 0):
            cluster.prepare(EngineConfig(cpus=2))
            with Stages(str(tmp_path)) as stages:
                stages.run("stage", {}, [], produce)
            assert len(joined) == expected
            joined.clear()


def test_rays_handler_of_sigterm_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 2.0})
    before = signal.getsignal(signal.SIGTERM)
    try:
        connect(EngineConfig(address="local"))
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("slow", [1, 3, 4])
def test_a_ray_that_starts_too_slowly_is_started_again(
    monkeypatch: pytest.MonkeyPatch, slow: int
) -> None:
    starts: list[str] = []

    def init(address: str, **options: Any) -> None:
        starts.append(address)
        if len(starts) <= slow:
            raise Exception("The current node timed out during startup. This could happen ...")

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 2.0})
    if slow < 4:
        connect(EngineConfig(address="local"))
        assert starts == ["local"] * (slow + 1)
        return
    with pytest.raises(ConfigError, match="not answer 4 times.*; try again when the machine has"):
        connect(EngineConfig(address="local"))


class TestWhatCannotBeJoinedOrStarted:
    """Each is one line with the cure, before Ray is asked."""

    @pytest.fixture(autouse=True)
    def no_ray(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ray.is_initialized", lambda: False)
        monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def test_a_cluster_that_is_gone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))  # bound, but nobody listens
            address = f"127.0.0.1:{held.getsockname()[1]}"
            monkeypatch.setattr("ray.init", lambda **options: pytest.fail("Ray was asked"))
            for given in (address, f"ray://{address}"):
                with pytest.raises(ConfigError, match="^engine.address: .*engine.address=local"):
                    connect(EngineConfig(address=given))
            monkeypatch.setenv("RAY_ADDRESS", address)
            with pytest.raises(ConfigError, match="^RAY_ADDRESS: .*unset RAY_ADDRESS"):
                connect(EngineConfig())

    def test_the_address_of_a_dashboard(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
        with pytest.raises(ConfigError, match="^RAY_ADDRESS: .*ray job submit --address http"):
            connect(EngineConfig())

    @pytest.mark.parametrize(
        ("address", "error", "message"),
        [
            ("auto", ConnectionError("Could not find\nany"), "engine.address: .*engine=laptop"),
            ("local", OSError("AF_UNIX path length"), "RAY_TMPDIR to a folder with a shorter"),
            ("local", PermissionError("/root/.ray"), "/root/.ray; see that HOME"),
        ],
    )
    def test_errors_of_ray(
        self, monkeypatch: pytest.MonkeyPatch, address: str, error: Exception, message: str
    ) -> None:
        def init(**options: Any) -> None:
            raise error

        monkeypatch.setattr("ray.init", init)
        with pytest.raises(ConfigError, match=message) as caught:
            connect(EngineConfig(address=address))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("engine", "cpus", "message"),
        [
            (
                EngineConfig(actors=4, cpus_per_actor=0.5, gpus_per_actor=0.25),
                2,
                "need 3 CPUs, .* set engine.actors=2",
            ),
            (
                EngineConfig(actors=1, cpus_per_actor=1, gpus_per_actor=0.25),
                1,
                "lower engine.cpus_per_actor",
            ),
            (EngineConfig(train_workers=3), 1, "engine.train_workers: 3 workers"),
            (
                EngineConfig(train_workers=3, gpus_per_train_worker=0.5),
                2,
                "^engine.gpus_per_train_worker: 3 workers .* need 1.5 GPUs, but Ray has 1 here",
            ),
        ],
    )
    def test_pools_and_trainings_that_would_wait_for_ever(
        self, monkeypatch: pytest.MonkeyPatch, engine: EngineConfig, cpus: int, message: str
    ) -> None:
        monkeypatch.setattr("ray.init", lambda **options: None)
        monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": float(cpus), "GPU": 1.0})
        with pytest.raises(ConfigError, match=message):
            connect(engine)

    def test_trainings_that_a_machine_has_gpus_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ray.init", lambda **options: None)
        there = {"CPU": 2.0, "GPU": 1.0}
        monkeypatch.setattr("ray.cluster_resources", lambda: there)
        engine = EngineConfig(train_workers=2, gpus_per_train_worker=0.5)
        assert connect(engine) == there
        there.pop("GPU")
        with pytest.raises(ConfigError, match=r"^engine\.gpus_per_train_worker: .*has 0 here"):
            connect(engine)
        assert connect(replace(engine, address="auto")) == there

    def test_tasks_fit_on_one_core(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ray.init", lambda **options: None)
        monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 1.0})
        for engine in (EngineConfig(), EngineConfig(actors=4, cpus_per_actor=0.5)):
            assert connect(engine) == {"CPU": 1.0}

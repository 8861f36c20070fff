"""Settings of the engine that need no cluster."""

import pytest

from cldmray.anonymizers.batching import DEFAULT_BATCH
from cldmray.engine.cluster import WORKER_ENVIRONMENT, EngineConfig


def test_the_batch_size_may_be_left_open() -> None:
    assert EngineConfig(batch_size=None).embedded_at_once == DEFAULT_BATCH
    assert EngineConfig(batch_size=7).embedded_at_once == 7
    with pytest.raises(ValueError, match="^batch_size: must be at least 1, got 0$"):
        EngineConfig(batch_size=0)


@pytest.mark.parametrize(
    ("batch_size", "gpus", "rows"),
    [(None, 0.0, None), (7, 0.0, None), (None, 0.25, 64), (24, 1.0, 48), (100, 1.0, 100)],
)
def test_rows_of_a_call(batch_size: int | None, gpus: float, rows: int | None) -> None:
    assert EngineConfig(batch_size=batch_size).rows_per_call(gpus) == rows


def test_workers_share_what_torch_compiles() -> None:
    hidden = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}  # GPUs, from workers that hold none
    assert EngineConfig().worker_environment == WORKER_ENVIRONMENT | hidden
    engine = EngineConfig(env={"A": "1"}, compile_cache="/shared/compiled")
    assert engine.worker_environment == hidden | {
        "A": "1",
        "TORCHINDUCTOR_CACHE_DIR": "/shared/compiled",
        "TORCHINDUCTOR_FX_GRAPH_CACHE": "1",
    }

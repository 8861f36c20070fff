from pathlib import Path

import pytest

from cldmray.anonymizers.baselines import Blur, NoOp
from cldmray.anonymizers.diffusion import Diffusion
from cldmray.attackers.condition_match import ConditionMatch
from cldmray.attackers.contrastive import CleanTrained, ConditionOnly
from cldmray.attackers.nn.encoder import SmallEncoder
from cldmray.attackers.nn.training import TrainingConfig
from cldmray.attackers.score_fusion import ScoreFusion
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.map_stages.cost import AttackCost, calibrate, calibrate_attackers
from cldmray.errors import BadInputError
from cldmray.faces.sources.folder import FolderFaces
from cldmray.faces.synthetic import SyntheticFaces

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

SOURCE = SyntheticFaces(n_identities=4, images_per_identity=5, size=32)


def test_every_anonymizer_is_tried(engine: EngineConfig) -> None:
    tried = calibrate(SOURCE, [NoOp(), Blur()], SOURCE.listing(), engine)
    assert len(tried) == 2
    contents = [content or b"" for content in SOURCE.read(SOURCE.listing()["location"].to_pylist())]
    sizes = [len(content) for content in contents]
    for reading, anonymizing in tried:
        assert reading is not None and anonymizing is not None
        assert reading.seconds > 0 and anonymizing.seconds > 0
        assert min(sizes) <= reading.size <= max(sizes)
    copied, blurred = (anonymizing.size for _, anonymizing in tried if anonymizing)
    assert min(sizes) <= copied <= max(sizes)
    assert blurred < copied


def test_every_attacker_is_tried(engine: EngineConfig) -> None:
    training = TrainingConfig(max_steps=3, warmup_steps=1, batch_size=4)
    encoder = SmallEncoder(width=8, dimensions=16, input_side=16)
    attackers = [
        ConditionMatch(side=8),
        CleanTrained(encoder, training),
        ConditionOnly(encoder, training),
        ScoreFusion(),
    ]
    matched, trained, conditioned, fused = calibrate_attackers(
        SOURCE, attackers, SOURCE.listing(), engine
    )
    assert matched.step is None and fused == AttackCost()
    assert matched.embedding is not None and matched.embedding.size == 8 * 8 * 4
    for cost in (trained, conditioned):
        assert cost.step is not None and cost.step > 0
        assert cost.embedding is not None and cost.embedding.seconds > 0
        assert cost.embedding.size == 16 * 4


def test_nothing_to_try(engine: EngineConfig, tmp_path: Path) -> None:
    (folder := tmp_path / "faces" / "ann").mkdir(parents=True)
    (folder / "0.png").write_bytes(b"")
    source = FolderFaces(str(folder.parent))
    assert calibrate(source, [NoOp()], source.listing(), engine) == [(None, None)]
    tried = calibrate_attackers(source, [ConditionMatch()], source.listing(), engine)
    assert tried == [AttackCost()]


def test_a_model_that_is_not_there(engine: EngineConfig, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no such folder"):
        calibrate(SOURCE, [Diffusion(f"{tmp_path}/none")], SOURCE.listing(), engine)

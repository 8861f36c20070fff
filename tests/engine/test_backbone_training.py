"""Public networks are trained, kept and started from as our own is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cldmray.attackers.encoder import EncoderConfig, FaceEncoder, embed
from cldmray.attackers.ladder import ClearTrained, TrainingConfig
from cldmray.engine.attack_data import pair_set, validation_set
from cldmray.engine.attack_training import check_training, fit_encoder, load_encoder
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.tables import StageTable, read_manifest
from cldmray.errors import ConfigError
from cldmray.faces.records import Pictures

STEPS = TrainingConfig(steps=2, batch=4, warmup=1, validate_every=2, precision="fp32")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders resnet and vit, as transformers saves them, for pictures of 32 pixels."""
    from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

    root = tmp_path_factory.mktemp("models")
    resnet = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(resnet).save_pretrained(root / "resnet")
    vit = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        image_size=32, patch_size=8,
    )  # fmt: skip
    # Without use of the mask token it is a weight that nothing depends on.
    ViTModel(vit, use_mask_token=True).save_pretrained(root / "vit")
    return root


@pytest.fixture
def photos(faces: StageTable) -> Pictures:
    return validation_set(ClearTrained(), faces, None).photos


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("gpus", [0.0, 0.5])
def test_workers_without_gpus_cannot_share_statistics(
    engine: EngineConfig, workers: int, gpus: float
) -> None:
    many = replace(engine, train_workers=workers, gpus_per_train_worker=gpus)
    for norm in ("group", "batch"):
        rung = ClearTrained(EncoderConfig(backbone="resnet50", norm=norm))  # type: ignore[arg-type]
        if norm == "batch" and workers == 2 and not gpus:
            with pytest.raises(ConfigError, match=r"^encoder.norm: batch on 2 .*train_workers=1"):
                check_training(rung, many)
        else:
            check_training(rung, many)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(("name", "norm"), [("resnet", "group"), ("vit", "group")])
def test_two_workers_learn_what_one_learns_and_others_start_from_it(
    models: Path,
    faces: StageTable,
    photos: Pictures,
    engine: EngineConfig,
    tmp_path: Path,
    name: str,
    norm: str,
) -> None:
    folder = str(models / name)
    shape = EncoderConfig(
        dimensions=8, backbone=f"transformers:{folder}", pretrained=folder, norm=norm
    )  # type: ignore[arg-type]
    rung = ClearTrained(shape, STEPS)

    def fit(
        stage: str, workers: int, start: StageTable | None = None, **training: float
    ) -> StageTable:
        changed = replace(rung, training=replace(STEPS, **training))  # type: ignore[arg-type]
        pairs, validation = pair_set(rung, faces, None), validation_set(rung, faces, None)
        many = replace(engine, train_workers=workers)
        fit_encoder(changed, pairs, validation, start, many, str(tmp_path / stage))
        manifest = read_manifest(str(tmp_path / stage))
        assert manifest is not None
        return StageTable(str(tmp_path / stage), manifest, stage)

    one, two = fit("one", 1), fit("two", 2)
    first, second = (load_encoder(stage, shape).state_dict() for stage in (one, two))
    for key, weights in first.items():
        torch.testing.assert_close(second[key], weights, rtol=0, atol=1e-4, msg=key)
    torch.manual_seed(STEPS.seed)
    untrained = embed(FaceEncoder(shape).eval(), photos)
    learnt = embed(load_encoder(one, shape), photos)
    assert np.abs(learnt - untrained).max() > 1e-2
    still = fit("still", 1, one, steps=1, learning_rate=1e-12)
    np.testing.assert_allclose(embed(load_encoder(still, shape), photos), learnt, atol=1e-5)

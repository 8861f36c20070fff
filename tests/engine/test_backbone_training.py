"""Public networks are trained, kept and started from as our own is."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cldmray.arrays import Images
from cldmray.attackers.contrastive import CleanTrained
from cldmray.attackers.data import AttackData
from cldmray.attackers.encoder_attacker import training_pairs, validation_pairs
from cldmray.attackers.nn.encoder import BackboneEncoder, EncoderConfig, FaceEncoder, embed
from cldmray.attackers.nn.training import TrainingConfig
from cldmray.engine.artifacts import Artifact, read_manifest
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.training import TrainingResult
from cldmray.errors import ConfigError
from tests.engine.training_helpers import (
    encoder_of,
    fit_encoder,
    fit_in_process,
    load_encoder,
)

STEPS = TrainingConfig(
    max_steps=2, batch_size=4, warmup_steps=1, validate_every=2, precision="fp32"
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders resnet and dino, as transformers saves them, for images of 32 pixels."""
    from transformers import Dinov2Config, Dinov2Model, ResNetConfig, ResNetModel

    root = tmp_path_factory.mktemp("models")
    resnet = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(resnet).save_pretrained(root / "resnet")
    dino = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    )
    Dinov2Model(dino).save_pretrained(root / "dino")
    return root


@pytest.fixture
def originals(faces: Artifact) -> Images:
    return validation_pairs(CleanTrained(), AttackData(faces)).originals


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("gpus", [0.0, 0.5])
def test_workers_without_gpus_cannot_share_statistics(
    engine: EngineConfig, workers: int, gpus: float
) -> None:
    many = replace(engine, train_workers=workers, gpus_per_train_worker=gpus)
    for norm in ("group", "batch"):
        attacker = CleanTrained(BackboneEncoder(backbone="resnet50", norm=norm))  # type: ignore[arg-type]
        if norm == "batch" and workers == 2 and not gpus:
            with pytest.raises(ConfigError, match=r"^encoder.norm: batch on 2 .*train_workers=1"):
                attacker.check_workers(many.most_train_workers, many.gpus_per_train_worker > 0)
        else:
            attacker.check_workers(many.most_train_workers, many.gpus_per_train_worker > 0)


def learner(shape: EncoderConfig, **training: float | None) -> CleanTrained:
    return CleanTrained(shape, replace(STEPS, **training))  # type: ignore[arg-type]


Fit = Callable[..., TrainingResult]


@pytest.fixture
def in_process(faces: Artifact) -> Fit:
    """Trains without Ray."""

    def in_process(
        attacker: CleanTrained, init_from: Mapping[str, Tensor] | None = None
    ) -> TrainingResult:
        data = AttackData(faces)
        pairs, validation = training_pairs(attacker, data), validation_pairs(attacker, data)
        return fit_in_process(attacker, pairs, validation, init_from)

    return in_process


@pytest.fixture
def on_two_workers(
    local_ray: None, faces: Artifact, engine: EngineConfig, tmp_path: Path
) -> Callable[[CleanTrained], FaceEncoder]:
    def on_two_workers(attacker: CleanTrained) -> FaceEncoder:
        data, folder = AttackData(faces), str(tmp_path / "two")
        pairs, validation = training_pairs(attacker, data), validation_pairs(attacker, data)
        fit_encoder(attacker, pairs, validation, replace(engine, train_workers=2), folder)
        manifest = read_manifest(folder)
        assert manifest is not None
        return load_encoder(Artifact(folder, manifest, folder), attacker.encoder)

    return on_two_workers


def shape_of(folder: Path) -> EncoderConfig:
    return BackboneEncoder(
        dimensions=8, backbone=f"transformers:{folder}", pretrained=str(folder), norm="group"
    )


def untrained(shape: EncoderConfig) -> FaceEncoder:
    torch.manual_seed(STEPS.seed)
    return FaceEncoder(shape).eval()


@pytest.mark.slow
@pytest.mark.nightly
def test_two_workers_learn_what_one_process_learns(
    models: Path, in_process: Fit, on_two_workers: Callable[[CleanTrained], FaceEncoder]
) -> None:
    attacker = learner(shape_of(models / "resnet"))
    single, two = in_process(attacker), on_two_workers(attacker).state_dict()
    for key, weights in single.state.items():
        torch.testing.assert_close(two[key], weights, rtol=0, atol=1e-4, msg=key)


def test_it_learns(models: Path, originals: Images, in_process: Fit) -> None:
    shape = shape_of(models / "resnet")
    learnt = embed(encoder_of(in_process(learner(shape)).state, shape), originals)
    assert np.abs(learnt - embed(untrained(shape), originals)).max() > 1e-2


def test_others_start_from_it(models: Path, originals: Images, in_process: Fit) -> None:
    shape = shape_of(models / "resnet")
    torch.manual_seed(1)
    base = FaceEncoder(shape, pretrained=False).eval()
    still = in_process(learner(shape, max_steps=1, learning_rate=1e-12), base.state_dict())
    expected = embed(base, originals)
    assert np.abs(expected - embed(untrained(shape), originals)).max() > 1e-2
    np.testing.assert_allclose(
        embed(encoder_of(still.state, shape), originals), expected, atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [pytest.param(None, marks=pytest.mark.nightly), 2])
def test_two_workers_train_a_network_with_weights_that_it_does_not_use(
    models: Path,
    originals: Images,
    in_process: Fit,
    on_two_workers: Callable[[CleanTrained], FaceEncoder],
    chunk: int | None,
) -> None:
    """Without help DistributedDataParallel stops at the second step, waiting for the mask token."""
    shape = shape_of(models / "dino")
    assert any(name.endswith("mask_token") for name, _ in untrained(shape).named_parameters())
    learnt = embed(on_two_workers(learner(shape, micro_batch_size=chunk)), originals)
    # Not the weights: the bias of attention keys has no gradient but rounding, which Adam enlarges.
    single = embed(encoder_of(in_process(learner(shape)).state, shape), originals)
    np.testing.assert_allclose(learnt, single, atol=1e-3)
    assert np.abs(learnt - embed(untrained(shape), originals)).max() > 1e-2
    np.testing.assert_allclose(np.linalg.norm(learnt, axis=1), 1, atol=1e-6)

"""Trainings as the stages of an audit run them, without an audit."""

from collections.abc import Mapping

from safetensors.torch import load
from torch import Tensor

from cldmray import storage
from cldmray.arrays import channels_last
from cldmray.attackers.encoder_attacker import EncoderAttacker
from cldmray.attackers.nn.encoder import EncoderConfig, FaceEncoder
from cldmray.attackers.nn.encoder_training import EncoderTrainable
from cldmray.attackers.nn.pairs import PairSet, Validation
from cldmray.attackers.reconstruction.base import ReconstructionModel, Reconstructor
from cldmray.attackers.reconstruction.pairs import ReconstructionPairs
from cldmray.attackers.reconstruction.training import ReconstructionTrainable, load_reconstructor
from cldmray.engine.artifacts import WEIGHTS, Artifact
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.training import TrainingResult, commit_training, train, train_in_process
from cldmray.recognizers.base import Recognizer


def fit_encoder(
    attacker: EncoderAttacker,
    pairs: PairSet,
    validation: Validation,
    engine: EngineConfig,
    folder: str,
) -> None:
    """Train an attacker's encoder on the engine's workers, and commit it to a folder."""
    attacker.check_workers(engine.most_train_workers, engine.gpus_per_train_worker > 0)
    trainable = _trainable(attacker, pairs, validation)
    commit_training(folder, WEIGHTS, train(trainable, engine, folder))


def fit_in_process(
    attacker: EncoderAttacker,
    pairs: PairSet,
    validation: Validation,
    init_from: Mapping[str, Tensor] | None = None,
) -> TrainingResult:
    """What the attacker's encoder learns here, without Ray: what all workers have to learn."""
    return train_in_process(_trainable(attacker, pairs, validation, init_from))


def _trainable(
    attacker: EncoderAttacker,
    pairs: PairSet,
    validation: Validation,
    init_from: Mapping[str, Tensor] | None = None,
) -> EncoderTrainable:
    return EncoderTrainable(
        attacker.name,
        attacker.encoder,
        attacker.training,
        pairs,
        validation=validation,
        init_from=init_from,
    )


def encoder_of(state: Mapping[str, Tensor], config: EncoderConfig) -> FaceEncoder:
    """An encoder with given weights."""
    encoder = FaceEncoder(config, pretrained=False)
    encoder.load_state_dict(state)
    return channels_last(encoder).eval()


def load_encoder(stage: Artifact, config: EncoderConfig) -> FaceEncoder:
    """The trained encoder of a folder."""
    return encoder_of(load(storage.read_bytes(storage.join(stage.folder, WEIGHTS))), config)


def fit_reconstructor(
    reconstruction: ReconstructionModel,
    pairs: ReconstructionPairs,
    validation: ReconstructionPairs,
    recognizer: Recognizer,
    engine: EngineConfig,
    folder: str,
) -> None:
    """Train a reconstruction model and commit it to a folder."""
    trainable = ReconstructionTrainable(
        reconstruction, pairs, validation=validation, validation_recognizer=recognizer
    )
    commit_training(folder, WEIGHTS, train(trainable, engine, folder))


def fitted_reconstructor(stage: Artifact, reconstruction: ReconstructionModel) -> Reconstructor:
    """The reconstruction model of a folder."""
    return load_reconstructor(reconstruction, storage.join(stage.folder, WEIGHTS))

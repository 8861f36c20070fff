"""The stage that fits one attacker's encoder on pairs of attacker identities."""

import pyarrow as pa
from safetensors.torch import load

from cldmray import storage
from cldmray.arrays import channels_last
from cldmray.attackers.encoder_attacker import EncoderAttacker
from cldmray.attackers.nn.encoder import EncoderConfig, FaceEncoder
from cldmray.attackers.nn.encoder_training import EncoderTrainable
from cldmray.attackers.nn.pairs import PairSet, Validation
from cldmray.attackers.nn.training import Curve
from cldmray.engine.artifacts import WEIGHTS, Artifact, Manifest, commit
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.training import TrainingResult, train

CURVE = "curve.parquet"


def fit_encoder(
    attacker: EncoderAttacker,
    pairs: PairSet,
    validation: Validation,
    start: Artifact | None,
    engine: EngineConfig,
    folder: str,
) -> None:
    """Train one encoder and commit its weights and learning curve to a stage folder.

    Training that was cut short, worker or driver, goes on from the folder's last checkpoint.

    Args:
        start: trained encoder to start from.
        folder: gets ``encoder.safetensors``, ``curve.parquet`` and Ray Train's checkpoints.

    Raises:
        BadInputError: the attacker people are too few for the training workers.
        CldmrayError: see :meth:`EncoderAttacker.check_workers` and :func:`cldmray.engine.training.train`.
    """
    attacker.check_workers(engine.most_train_workers, engine.gpus_per_train_worker > 0)
    init_from = None if start is None else load_encoder(start, attacker.encoder).state_dict()
    trainable = EncoderTrainable(
        attacker.name,
        attacker.encoder,
        attacker.training,
        pairs,
        validation=validation,
        init_from=init_from,
    )
    result = train(trainable, engine, folder)
    commit_training(folder, WEIGHTS, result)


def commit_training(folder: str, weights: str, result: TrainingResult) -> None:
    """Commit what was learnt to a stage folder: the file ``weights``, and ``curve.parquet``."""
    storage.write_bytes(storage.join(folder, weights), result.weights)
    curve = pa.Table.from_pylist(result.curve)
    storage.write_table(storage.join(folder, CURVE), curve)
    commit(folder, Manifest({CURVE: curve.num_rows}))


def load_encoder(stage: Artifact, config: EncoderConfig) -> FaceEncoder:
    """The trained encoder of a stage; ``config`` is the one it was trained with."""
    encoder = FaceEncoder(config, pretrained=False)
    encoder.load_state_dict(load(storage.read_bytes(storage.join(stage.folder, WEIGHTS))))
    return channels_last(encoder).eval()


def learning_curve(stage: Artifact) -> Curve:
    """Learning curve of a stage that :func:`commit_training` has written."""
    rows: Curve = storage.read_table(storage.join(stage.folder, CURVE)).to_pylist()
    return rows

"""Gathers an attacker's training and validation images from the stages' tables.

Ray Train fits one attacker's encoder on pairs of attacker people.
"""

import numpy as np
import pyarrow as pa
from safetensors.torch import load

from cldmray import storage
from cldmray.arrays import Images, channels_last
from cldmray.attackers.base import TrainedAttacker
from cldmray.attackers.nn.encoder import EncoderConfig, FaceEncoder
from cldmray.attackers.nn.encoder_training import EncoderTrainable
from cldmray.attackers.nn.pairs import Index, PairSet, Validation
from cldmray.attackers.nn.training import Curve
from cldmray.engine.artifacts import Artifact, Manifest, commit
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.training import TrainingResult, train
from cldmray.errors import BadInputError, ConfigError
from cldmray.faces.records import ATTACKER_VALIDATION, decode_images, embedding_matrix
from cldmray.recognizers.base import Embeddings

Gathered = tuple[Images, Index, Index, Images, Index]


def pair_set(
    attacker: TrainedAttacker,
    faces: Artifact,
    anonymized: Artifact | None,
    teacher_embeddings: Artifact | None = None,
) -> PairSet:
    """Training pairs of an attacker, over the people of its training splits only.

    Args:
        faces: the faces table.
        anonymized: the anonymizer's table, for attackers that learn from it.
        taught: the teacher's embeddings of the images, for attackers that have one.

    Raises:
        BadInputError: there are no images of attacker people, or of fewer than two; or the
            teacher has not embedded a photo.
    """
    gathered, targets = _gather(
        attacker, attacker.training_splits, faces, anonymized, teacher_embeddings
    )
    return PairSet(*gathered, attacker.query == "image", targets)


def validation_set(
    attacker: TrainedAttacker,
    faces: Artifact,
    anonymized: Artifact | None,
    teacher_embeddings: Artifact | None = None,
) -> Validation:
    """Validation queries and gallery of an attacker, over the validation people only."""
    gathered, targets = _gather(
        attacker, (ATTACKER_VALIDATION,), faces, anonymized, teacher_embeddings
    )
    return Validation(*gathered, targets)


def _gather(
    attacker: TrainedAttacker,
    splits: tuple[str, ...],
    faces: Artifact,
    anonymized: Artifact | None,
    teacher_embeddings: Artifact | None,
) -> tuple[Gathered, Embeddings | None]:
    originals = _rows(faces, splits)
    if not originals.num_rows:
        raise BadInputError(
            f"{attacker.name}: no images of {splits[0]} people; see splits.attacker, "
            "splits.auxiliary_fraction and splits.validation_fraction"
        )
    samples = originals["sample_id"].to_pylist()
    images = decode_images(originals["image"].to_pylist())
    _, codes = np.unique(np.asarray(originals["identity"].to_pylist()), return_inverse=True)
    identities = codes.astype(np.int64)
    targets = None if teacher_embeddings is None else _vectors_of(teacher_embeddings, samples)
    if attacker.query != "anonymized":
        queries = images if attacker.probe_condition is None else attacker.probe_condition(images)
        return (queries, identities, np.arange(len(identities)), images, identities), targets
    if anonymized is None:
        raise BadInputError(f"{attacker.name}: learns from anonymized images, but was given none")
    table = _rows(anonymized, splits)
    if not table.num_rows:
        raise BadInputError(f"{attacker.name}: no anonymized images of {splits[0]} people")
    row_of = {sample: row for row, sample in enumerate(samples)}
    source = np.array([row_of[sample] for sample in table["sample_id"].to_pylist()], np.int64)
    queries = decode_images(table["image"].to_pylist())
    if attacker.probe_condition is not None:
        queries = attacker.probe_condition(queries)
    return (queries, identities[source], source, images, identities), targets


def _rows(table: Artifact, splits: tuple[str, ...]) -> pa.Table:
    return pa.concat_tables([table.read(split=split) for split in splits])


def _vectors_of(embeddings: Artifact, samples: list[str]) -> Embeddings:
    """The embeddings of the given samples, in their order."""
    table = embeddings.read()
    row_of = {sample: row for row, sample in enumerate(table["sample_id"].to_pylist())}
    absent = [sample for sample in samples if sample not in row_of]
    if absent:
        raise BadInputError(f"the teacher has not embedded {len(absent)} images, as {absent[0]}")
    return embedding_matrix(table)[[row_of[sample] for sample in samples]]


WEIGHTS = "encoder.safetensors"
CURVE = "curve.parquet"


def check_training(attacker: TrainedAttacker, engine: EngineConfig) -> None:
    """Refuse batch normalisation on several workers that cannot share its statistics.

    Raises:
        ConfigError: they have no GPUs; the message names the key.
    """
    if (
        attacker.encoder.norm == "batch"
        and engine.most_train_workers > 1
        and not engine.gpus_per_train_worker
    ):
        raise ConfigError(
            f"encoder.norm: batch on {engine.most_train_workers} training workers needs GPUs; "
            "choose group or frozen, or engine.train_workers=1"
        )


def fit_encoder(
    attacker: TrainedAttacker,
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
        CldmrayError: see :func:`check_training` and :func:`cldmray.engine.training.train`.
    """
    check_training(attacker, engine)
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

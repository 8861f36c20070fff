"""The stage that fits one reconstruction model on the images that the anonymizer gave back."""

from dataclasses import dataclass

import numpy as np

from cldmray import storage
from cldmray.attackers.reconstruction.base import ReconstructionModel, Reconstructor
from cldmray.attackers.reconstruction.pairs import ReconstructionPairs, within_budget
from cldmray.attackers.reconstruction.training import ReconstructionTrainable, load_reconstructor
from cldmray.engine.artifacts import Artifact
from cldmray.engine.attacker_training import commit_training
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.training import train
from cldmray.errors import BadInputError
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, decode_images
from cldmray.recognizers.base import Recognizer


@dataclass(frozen=True)
class Queried:
    """Pairs, and the sample behind each anonymized image.

    Attributes:
        pairs: of the people of one split.
        samples: ``sample_id`` of each anonymized image.
    """

    pairs: ReconstructionPairs
    samples: list[str]

    def within(self, budget: int | None) -> ReconstructionPairs:
        """The pairs that so many queries buy; see :func:`within_budget`."""
        return self.pairs.rows(within_budget(self.samples, budget))


def queried(faces: Artifact, anonymized: Artifact, split: str) -> Queried:
    """All images of a split's people, and all anonymized images of theirs.

    Args:
        split: ``ATTACKER`` to learn from, ``ATTACKER_VALIDATION`` to validate on.

    Raises:
        BadInputError: there are no images, or no anonymized images, of such people.
    """
    if split not in (ATTACKER, ATTACKER_VALIDATION):
        raise ValueError(f"an reconstruction model may not learn from {split} people")
    originals = faces.read(split=split)
    table = anonymized.read(split=split)
    if not originals.num_rows or not table.num_rows:
        what = "anonymized images" if originals.num_rows else "photographs"
        raise BadInputError(
            f"inversion: no {what} of {split} people; see splits.attacker, "
            "splits.auxiliary_fraction and splits.validation_fraction"
        )
    samples = originals["sample_id"].to_pylist()
    _, codes = np.unique(np.asarray(originals["identity"].to_pylist()), return_inverse=True)
    identities = codes.astype(np.int64)
    row_of = {sample: row for row, sample in enumerate(samples)}
    sent = table["sample_id"].to_pylist()
    source = np.array([row_of[sample] for sample in sent], np.int64)
    pairs = ReconstructionPairs(
        decode_images(table["image"].to_pylist()),
        identities[source],
        source,
        decode_images(originals["image"].to_pylist()),
        identities,
    )
    return Queried(pairs, sent)


WEIGHTS = "reconstruction_model.safetensors"


def check_validation(pairs: ReconstructionPairs) -> None:
    """Refuse validation people of whom nobody can be named.

    Raises:
        BadInputError: nobody has a second image, so that ``validation_rank_1`` says nothing.
    """
    identities = pairs.original_identities.tolist()
    if len(set(identities)) == len(identities):
        raise BadInputError(
            "inversion: no validation person has two images; see splits.validation_fraction"
        )


def fit_reconstructor(
    reconstruction: ReconstructionModel,
    pairs: ReconstructionPairs,
    validation: ReconstructionPairs,
    validation_recognizer: Recognizer,
    engine: EngineConfig,
    folder: str,
) -> None:
    """Let one reconstruction model learn and commit it with its learning curve to a stage folder.

    A training that was cut short, worker or driver, goes on from the folder's last checkpoint.

    Args:
        pairs: of attacker people, as many as the query budget allows; a control shuffles them
            itself.
        validation: pairs of other people of the attacker.
        validator: embeds them.
        folder: gets ``reconstruction model.safetensors``, ``curve.parquet`` and Ray Train's checkpoints.

    Raises:
        BadInputError: the pairs are too few for the training workers.
        CldmrayError: the training diverged.
    """
    trainable = ReconstructionTrainable(
        reconstruction, pairs, validation=validation, validation_recognizer=validation_recognizer
    )
    commit_training(folder, WEIGHTS, train(trainable, engine, folder))


def fitted_reconstructor(
    stage: Artifact, reconstruction: ReconstructionModel, device: str = "cpu"
) -> Reconstructor:
    """The reconstruction model of a stage; ``inversion`` are the settings with which it learnt."""
    return load_reconstructor(reconstruction, storage.join(stage.folder, WEIGHTS), device)

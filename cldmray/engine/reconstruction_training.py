"""The stage that fits one reconstruction model on the images that the anonymizer gave back."""

from cldmray import storage
from cldmray.attackers.reconstruction.base import ReconstructionModel, Reconstructor
from cldmray.attackers.reconstruction.pairs import ReconstructionPairs
from cldmray.attackers.reconstruction.training import ReconstructionTrainable, load_reconstructor
from cldmray.engine.artifacts import WEIGHTS, Artifact
from cldmray.engine.attacker_training import commit_training
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.training import train
from cldmray.recognizers.base import Recognizer


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

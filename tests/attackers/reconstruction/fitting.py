"""Reconstruction models that have learnt in the test's own process, and their files."""

from collections.abc import Callable

from safetensors.torch import save

from cldmray import storage
from cldmray.attackers.nn.training import TrainingLoop, Worker
from cldmray.attackers.reconstruction.base import ReconstructionModel, Reconstructor
from cldmray.attackers.reconstruction.pairs import ReconstructionPairs
from cldmray.attackers.reconstruction.training import ReconstructionTrainable


def fit(
    reconstruction: ReconstructionModel,
    pairs: ReconstructionPairs,
    device: str = "cpu",
    watch: Callable[[int, float, Reconstructor], None] | None = None,
) -> Reconstructor:
    """A reconstruction model that has learnt from the pairs, in this process.

    Args:
        reconstruction: its settings; where it is the control, it shuffles the pairs itself.
        pairs: of attacker identities.
        device: of torch.
        watch: called after each step with the steps done, the loss and the reconstructor.

    Raises:
        CldmrayError: something is missing, or the pairs do not fit.
    """
    trainable = ReconstructionTrainable(reconstruction, pairs)
    loop = TrainingLoop(trainable, Worker(device=device))
    if loop.network is not None:
        for loss in loop.steps():
            if watch is not None:
                watch(loop.step, loss, trainable.reconstructor)
    return trainable.reconstructor


def save_reconstructor(reconstructor: Reconstructor, uri: str) -> None:
    """Write all that a reconstruction model has learnt as safetensors, atomically."""
    storage.write_bytes(uri, save(reconstructor.state()))

"""The training of an attacker's face encoder: what the one loop needs to know of it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cldmray.arrays import Images, channels_last
from cldmray.attackers.nn.encoder import EncoderConfig, FaceEncoder, embed
from cldmray.attackers.nn.objectives import objective
from cldmray.attackers.nn.pairs import PairSet, Validation
from cldmray.attackers.nn.training import Call, Trainable, TrainingConfig, Worker, loaded
from cldmray.recognizers.base import Embeddings


class EncoderTrainable(Trainable):
    """An encoder that learns from pairs of images, contrastively or from a teacher.

    Args:
        name: of the attacker.
        encoder: its shape.
        training: how it learns.
        pairs: what it learns from, or a function that reads it on each worker.
        validation: other identities, or a function as for ``pairs``; None measures no rank-1 rate.
        init_from: weights to start from; None draws them with ``training.seed``.

    >>> from cldmray.attackers.nn.encoder import SmallEncoder
    >>> from cldmray.attackers.nn.training import TrainingLoop
    >>> images = np.zeros((4, 16, 16, 3), np.uint8)
    >>> identities, rows = np.array([0, 0, 1, 1]), np.arange(4)
    >>> pairs = PairSet(images, identities, rows, images, identities, avoid_source=True)
    >>> training = TrainingConfig(max_steps=2, warmup_steps=1)
    >>> trainable = EncoderTrainable("mine", SmallEncoder(width=8), training, pairs)
    >>> [point["step"] for point in TrainingLoop(trainable).points()]
    [2.0]
    """

    remedy = (
        "lower its training.learning_rate, or raise its training.warmup_steps or "
        "training.temperature"
    )

    def __init__(
        self,
        name: str,
        encoder: EncoderConfig,
        training: TrainingConfig,
        pairs: PairSet | Callable[[], PairSet],
        *,
        validation: Validation | Callable[[], Validation] | None = None,
        init_from: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.name = name
        self.schedule: TrainingConfig = training
        self.micro_batch_size = training.micro_batch_size
        self.find_unused_parameters = encoder.has_unused_parameters
        self._config = encoder
        self._pairs = pairs
        self._validation = validation
        self._init_from = init_from

    def check(self, workers: int) -> None:
        """Refuse more workers than a batch has identities; :meth:`build` does where they are read.

        Raises:
            BadInputError: there are too few identities.
        """
        if isinstance(self._pairs, PairSet):
            objective(self._pairs, self.schedule, workers)

    def build(self, worker: Worker) -> nn.Module:
        self.worker = worker
        self.objective = objective(loaded(self._pairs), self.schedule, worker.workers)
        self._validation = loaded(self._validation)
        encoder = initial_encoder(self._config, self.schedule, self._init_from)
        if self._config.shared_statistics and worker.workers > 1:
            encoder.features = self._config.share_statistics(encoder.features)
        self.network = encoder.to(worker.device)
        if isinstance(self._validation, Validation):
            self._untrained = self._validation.rank_1(
                lambda images: embed(encoder.eval(), images, device=worker.device)
            )
        return self.network.train()

    def loss(self, step: int, call: Call) -> Tensor:
        size = self.objective.size
        own = self.worker.share(size)
        weight = self.worker.weight(own.stop - own.start, size)
        return weight * self.objective.loss(step, own, call, torch.device(self.worker.device))

    def validate(self) -> dict[str, float]:
        if not isinstance(self._validation, Validation):
            return {}
        return {
            "validation_rank_1": self._validation.rank_1(self._embed_shared),
            "untrained_rank_1": self._untrained,
            "validation_identities": float(self._validation.n_identities),
        }

    def _embed_shared(self, images: Images) -> Embeddings:
        """Embeddings of all images, of which every worker computes a share."""
        workers, device = self.worker.workers, self.worker.device
        if workers == 1 or len(images) < workers:
            return embed(self.network, images, device=device)
        shares: list[Any] = [None] * workers
        own = embed(self.network, images[self.worker.share(len(images))], device=device)
        torch.distributed.all_gather_object(shares, own)
        return np.concatenate(shares)

    def state(self) -> dict[str, Tensor]:
        return self.network.state_dict()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.network.load_state_dict(state)


def initial_encoder(
    config: EncoderConfig, training: TrainingConfig, init_from: Mapping[str, Tensor] | None = None
) -> FaceEncoder:
    """The encoder before its first step; seeds torch's global generator.

    Args:
        init_from: weights to start from; None draws them with ``training.seed``.
    """
    torch.manual_seed(training.seed)
    encoder = FaceEncoder(config, pretrained=init_from is None)
    if init_from is not None:
        encoder.load_state_dict(init_from)
    return channels_last(encoder)

"""Retrieval: the anonymized image's embedding, and the attacker's own image next to it."""

from collections.abc import Mapping
from dataclasses import field

import numpy as np
import torch
from pydantic import PositiveFloat
from torch import Tensor

from cldmray.arrays import Images, channels_last
from cldmray.attackers.nn.encoder import EncoderConfig, FaceEncoder, embed
from cldmray.attackers.nn.losses import distributed_guided
from cldmray.attackers.nn.training import Call, on_cpu
from cldmray.attackers.reconstruction.base import (
    ReconstructionBatch,
    Reconstructor,
    Seeds,
    TrainedReconstructionModel,
)
from cldmray.attackers.reconstruction.controls import check_size
from cldmray.attackers.reconstruction.pairs import ReconstructionPairs
from cldmray.errors import BadInputError, ConfigError
from cldmray.gallery.vector_index import VectorIndex
from cldmray.recognizers.base import Embeddings, Recognizer
from cldmray.recognizers.sface import landmark_sface
from cldmray.settings import Count, checked_dataclass

IMAGES, VECTORS, ENCODER = "originals", "vectors", "encoder."


@checked_dataclass
class NearestNeighbor(TrainedReconstructionModel):
    """Retrieval: gives the attacker's original whose embedding is nearest to the anonymized image.

    It cannot give the evaluated person, who is not among the attacker's identities. Its rate shows
    how far a similar face goes; a model that exceeds it has reconstructed something.

    Attributes:
        encoder: of a student that learns to embed anonymized images where the teacher embeds their
            originals, as in :mod:`cldmray.attackers.distilled`; None: the teacher embeds both, and
            nothing is trained.
        teacher: embeds the originals.
        temperature: of the student's contrastive loss.
        nearest: number of originals that are given, the nearest first.
    """

    encoder: EncoderConfig | None = None
    teacher: Recognizer = field(default_factory=landmark_sface)
    temperature: PositiveFloat = 0.07
    nearest: Count = 1

    @property
    def kind(self) -> str:
        return "nearest_neighbor"

    @property
    def guesses(self) -> int:
        return self.nearest

    @property
    def max_steps(self) -> int:
        return 0 if self.encoder is None else self.training.max_steps

    @property
    def learns_with(self) -> tuple[Recognizer, ...]:
        started_from = () if self.encoder is None else self.encoder.starts_from
        return (self.teacher, *started_from)

    def check(self) -> None:
        self.teacher.check()
        if self.encoder is None:
            return
        self.encoder.check()
        if self.encoder.dimensions != self.teacher.dimension:
            raise ConfigError(
                f"encoder.dimensions: must be {self.teacher.dimension}, the length of "
                f"{self.teacher.name}'s embeddings, got {self.encoder.dimensions}"
            )

    def build(self, device: str = "cpu") -> "NearestNeighborReconstructor":
        return NearestNeighborReconstructor(self, device)


class NearestNeighborReconstructor(Reconstructor):
    """See :class:`NearestNeighbor`."""

    def __init__(self, config: NearestNeighbor, device: str) -> None:
        self.config = config
        self.device = device
        self.originals = np.zeros((0, 1, 1, 3), np.uint8)
        self.vectors: Embeddings = np.zeros((0, 0), np.float32)
        self.student: FaceEncoder | None = None
        if config.encoder is not None:
            torch.manual_seed(config.training.seed)
            self.student = channels_last(FaceEncoder(config.encoder)).to(device)
        self.network = self.student

    def learn(self, pairs: ReconstructionPairs) -> None:
        """Embed the images, also those that were never sent to the anonymizer."""
        if len(pairs.originals) < self.config.nearest:
            raise BadInputError(f"nearest: {self.config.nearest} of {len(pairs.originals)} images")
        self.originals = pairs.originals
        self.vectors = self.config.teacher.embed(pairs.originals)

    def loss(self, network: Call, batch: ReconstructionBatch) -> Tensor:
        device = batch.anonymized.device
        targets = torch.from_numpy(self.vectors[batch.rows]).to(device)
        identities = torch.from_numpy(batch.identities).to(device)
        students = network(batch.anonymized)
        return distributed_guided(students, targets, self.config.temperature, identities)

    def _reconstruct(self, images: Images, seeds: Seeds) -> Images:
        if not len(self.originals):
            raise BadInputError("the nearest neighbor has learnt from no images yet")
        check_size(images, self.originals.shape[1:])
        if not len(images):
            return np.empty((0, self.config.nearest, *images.shape[1:]), np.uint8)
        # rows (N, nearest) of the originals, so (N, nearest, h, w, 3) images.
        _, rows = VectorIndex(self.vectors, gpus=0).search(self._embed(images), self.config.nearest)
        return self.originals[rows]

    def _embed(self, images: Images) -> Embeddings:
        if self.student is None:
            return self.config.teacher.embed(images)
        self.student.eval()
        vectors = embed(self.student, images, device=self.device)
        self.student.train()
        return vectors

    def state(self) -> dict[str, Tensor]:
        state = {IMAGES: torch.tensor(self.originals), VECTORS: torch.tensor(self.vectors)}
        if self.student is not None:
            weights = on_cpu(self.student.state_dict())
            state |= {ENCODER + name: value for name, value in weights.items()}
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.originals, self.vectors = state[IMAGES].numpy(), state[VECTORS].numpy()
        if self.student is not None:
            weights = {
                name.removeprefix(ENCODER): value
                for name, value in state.items()
                if name.startswith(ENCODER)
            }
            self.student.load_state_dict(weights)

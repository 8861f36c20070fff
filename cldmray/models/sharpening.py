"""A third phase: the decoder learns detail from a discriminator; the latents stay as they are.

A decoder that minimises distances alone paints the mean of all that a latent may stand for, which
is soft. A discriminator of patches sees that (Esser, Rombach and Ommer 2021).
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from cldmray.arrays import Images, to_unit_range
from cldmray.attackers.nn.training import Call, Worker
from cldmray.models.cldm_networks import autoencoder_loss
from cldmray.models.phases import BatchShard, PhaseConfig, PhaseTrainable, TrainingRun

ADVERSARIAL_WEIGHT = 0.05
MATCHING_WEIGHT = 0.5
SLOPE = 0.2


class PatchDiscriminator(nn.Module):
    """Tells images from decoded ones, patch by patch (Isola et al. 2017).

    Args:
        widths: channels of its layers, each of which halves the side.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128)) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.utils.parametrizations.spectral_norm(
                nn.Conv2d(before, width, 4, stride=2, padding=1)
            )
            for before, width in zip((3, *widths), widths, strict=False)
        )
        self.head = nn.utils.parametrizations.spectral_norm(nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of each layer, then scores (N, 1, h, w), above 0 for what looks real.

        Args:
            images: in -1..1, shape (N, 3, size, size).
        """
        outputs = []
        hidden = images
        for layer in self.layers:
            hidden = functional.leaky_relu(layer(hidden), SLOPE)
            outputs.append(hidden)
        return [*outputs, self.head(hidden)]


class Losses(NamedTuple):
    """Scalars: of the decoder the first three, of the discriminator the last."""

    reconstruction: Tensor
    matching: Tensor
    adversarial: Tensor
    discriminator: Tensor


class SharpenedDecoder(nn.Module):
    """The decoding half of an autoencoder, and its discriminator, as one module.

    The sum of its losses trains both with one optimizer: the decoder's losses see the discriminator
    as a constant, and the discriminator's loss sees the decoded images as constants.
    """

    def __init__(self, autoencoder: AutoencoderKL) -> None:
        super().__init__()
        self.post_quant_conv = autoencoder.post_quant_conv
        self.decoder = autoencoder.decoder
        self.discriminator = PatchDiscriminator()

    def forward(self, latents: Tensor, images: Tensor) -> Losses:
        """Losses of decoded latents, shape (N, channels, h, w), against their images in -1..1."""
        decoded = self.decoder(self.post_quant_conv(latents))
        constant = {name: value.detach() for name, value in self.discriminator.named_parameters()}
        *features, scores = functional_call(self.discriminator, constant, (decoded,))
        *real_features, real_scores = self.discriminator(images)
        fake_scores = self.discriminator(decoded.detach())[-1]
        matching = [
            functional.l1_loss(feature, real.detach())
            for feature, real in zip(features, real_features, strict=True)
        ]
        return Losses(
            autoencoder_loss(decoded.float(), images),
            torch.stack(matching).mean(),
            -scores.mean(),
            (functional.relu(1 - real_scores) + functional.relu(1 + fake_scores)).mean() / 2,
        )


class SharpeningTrainable(PhaseTrainable):
    """Fine-tunes a trained decoder.

    Args:
        autoencoder: with standardised latents; a copy of its decoding half is trained.
        latents: of the images, shape (N, channels, h, w).
    """

    def __init__(
        self,
        name: str,
        phase: PhaseConfig,
        training: TrainingRun,
        *,
        images: Images,
        latents: Tensor,
        autoencoder: AutoencoderKL,
    ) -> None:
        super().__init__(name, phase, training, len(images))
        self._images = images
        self._latents = latents
        self._config = dict(autoencoder.config)
        self._weights = autoencoder.state_dict()

    def build_network(self, worker: Worker) -> nn.Module:
        autoencoder = AutoencoderKL.from_config(self._config)
        autoencoder.load_state_dict(self._weights)
        return SharpenedDecoder(autoencoder)

    def mean_loss(self, shard: BatchShard, call: Call) -> Tensor:
        device = self.worker.device
        images = to_unit_range(self._images[shard.rows.numpy()]).to(device)
        losses: Losses = call(self._latents[shard.rows].to(device), images)
        return (
            losses.reconstruction
            + MATCHING_WEIGHT * losses.matching
            + ADVERSARIAL_WEIGHT * losses.adversarial
            + losses.discriminator
        )


def load_decoder(autoencoder: AutoencoderKL, state: Mapping[str, Tensor]) -> None:
    """Give an autoencoder the decoding half that :class:`SharpenedDecoder` has learnt."""
    for half in ("post_quant_conv", "decoder"):
        own = {
            name.removeprefix(f"{half}."): value
            for name, value in state.items()
            if name.startswith(f"{half}.")
        }
        getattr(autoencoder, half).load_state_dict(own)

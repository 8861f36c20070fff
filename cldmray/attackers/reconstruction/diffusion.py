"""Reconstruction by a latent diffusion model: several originals that an image may have had."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cldmray.anonymizers.diffusion import Diffusion, model_folder
from cldmray.arrays import Images, channels_last, to_unit_range
from cldmray.attackers.nn.training import Call, on_cpu
from cldmray.attackers.reconstruction.base import (
    ReconstructionBatch,
    Reconstructor,
    Seeds,
    TrainedReconstructionModel,
    to_pixels,
)
from cldmray.conditions.base import Condition
from cldmray.errors import BadInputError
from cldmray.hashing import digest
from cldmray.settings import Count, NonEmpty, checked_dataclass

IMAGES_AT_ONCE = 64


@checked_dataclass
class DiffusionReconstruction(TrainedReconstructionModel):
    """A conditional latent diffusion model (Rombach et al. 2022), started from a public one.

    The UNet reads the anonymized image's latent beside the noisy one of the image; the
    weights that read it start at zero (Brooks, Holynski and Efros 2023), so that training begins at
    the public model. Guesses are drawn by DDIM (Song, Meng and Ermon 2021).

    Where the anonymizer under attack is that very model, the attacker holds its weights, which is
    more than to be able to use it: ``pretrained=False`` leaves the autoencoder only.

    Attributes:
        model: ``embedded`` (the package's own small model), a local folder or a hub id, as in
            :class:`~cldmray.anonymizers.diffusion.Diffusion`; Stable Diffusion 1 and 2 are known.
        condition: extractor whose maps of the images it reads beside them, as grey images;
            None: the images alone.
        pretrained: whether the UNet starts with the model's weights; the autoencoder has them
            always.
        sampling_steps: of DDIM.
        n_samples: guesses for each image, from different noise.
    """

    model: NonEmpty = model_folder.EMBEDDED
    condition: Condition | None = None
    pretrained: bool = True
    sampling_steps: Count = 8
    n_samples: Count = 4

    @property
    def kind(self) -> str:
        return "diffusion"

    @property
    def guesses(self) -> int:
        return self.n_samples

    def version(self) -> str:
        """Fingerprint of the model's weights and settings.

        Raises:
            BadInputError: the folder is missing or incomplete.
        """
        return Diffusion(self.model).version()

    def trained_on(self) -> frozenset[str]:
        """Hashes of the identities that the model was trained on, where it says so.

        Raises:
            BadInputError: a line of its list is no identity hash.
        """
        return Diffusion(self.model).trained_on()

    def check(self) -> None:
        self.version()

    def build(self, device: str = "cpu") -> "DiffusionReconstructor":
        return DiffusionReconstructor(self, device)


class DiffusionReconstructor(Reconstructor):
    """See :class:`DiffusionReconstruction`.

    Raises:
        BadInputError: the model cannot be loaded, or is of a kind that is not known.
    """

    def __init__(self, config: DiffusionReconstruction, device: str) -> None:
        from diffusers import DDIMScheduler

        from cldmray.anonymizers.diffusion import loading

        pipe = loading.load(Diffusion(config.model, device=device))
        unet = getattr(pipe, "unet", None)
        is_known = unet is not None and unet.config.addition_embed_type is None
        if not is_known or loading.takes_mask(pipe):
            raise BadInputError(
                f"{config.model}: only Stable Diffusion 1 and 2 can be inverted with"
            )
        self.config = config
        self.device = device
        self.autoencoder = pipe.vae
        self.factor = int(pipe.vae_scale_factor)
        self.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
        self.side_factor = self.factor * 2 ** (len(pipe.unet.config.block_out_channels) - 1)
        prompt = pipe.encode_prompt(Diffusion().prompt, device, 1, False)[0]
        torch.manual_seed(config.training.seed)
        read = pipe.vae.config.latent_channels
        read += 0 if config.condition is None else self.factor**2
        self.network = channels_last(
            LatentDenoiser(pipe.unet, prompt.detach(), read, config.pretrained)
        ).to(device)

    def maps(self, anonymized: Images) -> Images | None:
        condition = self.config.condition
        return None if condition is None else condition(anonymized)

    def loss(self, network: Call, batch: ReconstructionBatch) -> Tensor:
        with torch.no_grad():
            originals = self._latents(batch.originals)
            given = self._given(batch.anonymized, batch.maps)
        max_steps = self.scheduler.config.num_train_timesteps
        times, noises = [], []
        for seed in batch.seeds.tolist():
            generator = torch.Generator().manual_seed(seed)
            times.append(torch.randint(max_steps, (), generator=generator))
            noises.append(torch.randn(originals.shape[1:], generator=generator))
        time = torch.stack(times).to(originals.device)
        noise = torch.stack(noises).to(originals.device)
        noisy = self.scheduler.add_noise(originals, noise, time)
        targets = {"epsilon": noise, "sample": originals}
        target = targets.get(self.scheduler.config.prediction_type)
        if target is None:
            target = self.scheduler.get_velocity(originals, noise, time)
        return functional.mse_loss(network(noisy, time, given).float(), target)

    @torch.no_grad()
    def _reconstruct(self, images: Images, seeds: Seeds) -> Images:
        height, width = images.shape[1:3]
        if height % self.side_factor or width % self.side_factor:
            raise BadInputError(
                f"{self.config.name}: images of {width}x{height} pixels cannot be drawn, both "
                f"sides must be multiples of {self.side_factor}"
            )
        n_samples = self.config.n_samples
        drawn = np.empty((len(images), n_samples, *images.shape[1:]), np.uint8)
        for start in range(0, len(images), IMAGES_AT_ONCE):
            part = slice(start, min(start + IMAGES_AT_ONCE, len(images)))
            maps = self.maps(images[part])
            given = self._given(
                to_unit_range(images[part]).to(self.device),
                None if maps is None else to_unit_range(maps).to(self.device),
            )
            for draw in range(n_samples):
                drawn[part, draw] = self._sample(given, seeds[part], draw)
        return drawn

    def _sample(self, given: Tensor, seeds: Seeds, draw: int) -> Images:
        """One guess for each image, whose noise comes from its seed and the draw's number."""
        assert self.network is not None
        shape = (self.autoencoder.config.latent_channels, *given.shape[-2:])
        latents = torch.stack([_noise(seed, draw, shape) for seed in seeds.tolist()])
        latents = latents.to(self.device)
        self.scheduler.set_timesteps(self.config.sampling_steps)
        for time in self.scheduler.timesteps:
            output = self.network(latents, time.expand(len(latents)).to(self.device), given)
            latents = self.scheduler.step(output, time, latents, eta=0.0).prev_sample
        scaled = latents / self.autoencoder.config.scaling_factor + self._shift()
        return to_pixels(self.autoencoder.decode(scaled).sample)

    def _given(self, anonymized: Tensor, maps: Tensor | None) -> Tensor:
        """What the UNet reads beside the noisy latent, shape (n, channels, h, w)."""
        latents = self._latents(anonymized)
        if maps is None:
            return latents
        grey = functional.pixel_unshuffle(maps.mean(1, keepdim=True), self.factor)
        return torch.cat([latents, grey], dim=1)

    def _latents(self, images: Tensor) -> Tensor:
        encoded = self.autoencoder.encode(images).latent_dist.mode()
        latents: Tensor = (encoded - self._shift()) * self.autoencoder.config.scaling_factor
        return latents

    def _shift(self) -> float:
        return float(self.autoencoder.config.get("shift_factor") or 0.0)

    def state(self) -> dict[str, Tensor]:
        assert self.network is not None
        return on_cpu(self.network.state_dict())

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        assert self.network is not None
        self.network.load_state_dict(state)


class LatentDenoiser(nn.Module):
    """A UNet of diffusers that reads more than the noisy latent, and always the same prompt.

    Args:
        unet: its weights are taken over and go on learning.
        prompt: embedding, shape (1, length, width).
        read: channels that it reads beside the noisy latent.
        pretrained: whether it keeps its weights; False draws new ones.
    """

    prompt: Tensor

    def __init__(self, unet: Any, prompt: Tensor, read: int, pretrained: bool) -> None:
        from diffusers.models.attention_processor import AttnProcessor

        super().__init__()
        if not pretrained:
            unet = type(unet).from_config(unet.config)
        unet.set_attn_processor(AttnProcessor())
        unet.conv_in = widened(unet.conv_in, read)
        self.unet = unet.float().requires_grad_(True).train()
        self.prompt = nn.Buffer(prompt.float().clone())

    def forward(self, noisy: Tensor, time: Tensor, given: Tensor) -> Tensor:
        """The UNet's prediction, shape of ``noisy``.

        Args:
            noisy: latents, shape (n, channels, h, w).
            time: int64, shape (n,).
            given: shape (n, read, h, w).
        """
        prompt = self.prompt.expand(len(noisy), -1, -1)
        seen = torch.cat([noisy, given], dim=1)
        output: Tensor = self.unet(seen, time, encoder_hidden_states=prompt).sample
        return output


@torch.no_grad()
def widened(convolution: nn.Conv2d, more: int) -> nn.Conv2d:
    """The convolution with ``more`` input channels behind its own, whose weights are zero."""
    assert not isinstance(convolution.padding, str)
    wider = nn.Conv2d(
        convolution.in_channels + more,
        convolution.out_channels,
        (convolution.kernel_size[0], convolution.kernel_size[1]),
        (convolution.stride[0], convolution.stride[1]),
        (convolution.padding[0], convolution.padding[1]),
        bias=convolution.bias is not None,
    )
    wider.weight.zero_()
    wider.weight[:, : convolution.in_channels] = convolution.weight
    if convolution.bias is not None and wider.bias is not None:
        wider.bias.copy_(convolution.bias)
    return wider


def _noise(seed: int, draw: int, shape: tuple[int, ...]) -> Tensor:
    own = int(digest("guess", seed, draw)[:15], 16)
    return torch.randn(shape, generator=torch.Generator().manual_seed(own))

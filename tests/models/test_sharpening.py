"""The decoder's third phase: one sum of losses trains decoder and discriminator."""

import copy

import numpy as np
import pytest
import torch

from cldmray.arrays import to_unit_range
from cldmray.attackers.nn.training import TrainingLoop
from cldmray.models import cldm
from cldmray.models.cldm_training import CldmTraining
from cldmray.models.phases import PhaseConfig
from cldmray.models.sharpening import (
    PatchDiscriminator,
    SharpenedDecoder,
    SharpeningTrainable,
    load_decoder,
)


@pytest.fixture(autouse=True)
def repeatable() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def network(small: cldm.CldmArchitecture) -> SharpenedDecoder:
    return SharpenedDecoder(cldm.build_autoencoder(small))


def gradients(network: SharpenedDecoder, loss: str) -> dict[str, float]:
    """Largest gradient of each part from one of the losses."""
    network.zero_grad()
    latents, images = torch.randn(2, 8, 4, 4), torch.rand(2, 3, 32, 32) * 2 - 1
    getattr(network(latents, images), loss).backward()
    return {
        name: max(
            (float(p.grad.abs().max()) for p in part.parameters() if p.grad is not None),
            default=0.0,
        )
        for name, part in network.named_children()
    }


class TestSharpenedDecoder:
    @pytest.mark.parametrize("loss", ["reconstruction", "matching", "adversarial"])
    def test_the_decoders_losses_leave_the_discriminator(
        self, network: SharpenedDecoder, loss: str
    ) -> None:
        largest = gradients(network, loss)
        assert largest["decoder"] > 0 and largest["post_quant_conv"] > 0
        assert largest["discriminator"] == 0

    def test_the_discriminators_loss_leaves_the_decoder(self, network: SharpenedDecoder) -> None:
        largest = gradients(network, "discriminator")
        assert largest["discriminator"] > 0
        assert largest["decoder"] == largest["post_quant_conv"] == 0

    def test_the_discriminator_learns_to_tell_noise_from_flat_images(self) -> None:
        discriminator = PatchDiscriminator((8, 16))
        optimizer = torch.optim.Adam(discriminator.parameters(), 1e-2)
        for _ in range(30):
            real, fake = torch.rand(8, 3, 16, 16) * 2 - 1, torch.zeros(8, 3, 16, 16)
            loss = (1 - discriminator(real)[-1]).relu() + (1 + discriminator(fake)[-1]).relu()
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()
        real, fake = torch.rand(8, 3, 16, 16) * 2 - 1, torch.zeros(8, 3, 16, 16)
        assert (discriminator(real)[-1] > discriminator(fake)[-1]).float().mean() > 0.95


def test_only_the_decoding_half_changes(small: cldm.CldmArchitecture) -> None:
    autoencoder = cldm.build_autoencoder(small)
    before = copy.deepcopy(autoencoder.state_dict())
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    with torch.no_grad():
        latents = autoencoder.encode(to_unit_range(images)).latent_dist.mean
    phase = PhaseConfig(max_steps=3, batch_size=4, learning_rate=1e-3, warmup_steps=1)
    training = CldmTraining(
        autoencoder=phase, diffusion=phase, storage="nowhere", arrays="nowhere", precision="fp32"
    )
    loop = TrainingLoop(
        SharpeningTrainable(
            "sharpening", phase, training, images=images, latents=latents, autoencoder=autoencoder
        )
    )
    for _ in loop.points():
        pass
    for name, value in autoencoder.state_dict().items():
        assert torch.equal(value, before[name])
    load_decoder(autoencoder, loop.state())
    changed = {
        name.split(".")[0]
        for name, value in autoencoder.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {"decoder", "post_quant_conv"}

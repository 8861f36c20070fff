"""The diffusion reconstruction model on the shipped model, with images of a quarter of its size."""

import numpy as np
import pytest
import torch
from torch import nn

from cldmray.anonymizers.diffusion.model_folder import EMBEDDED_FOLDER
from cldmray.attackers.nn.training import Worker
from cldmray.attackers.reconstruction.base import ReconstructionTraining
from cldmray.attackers.reconstruction.diffusion import (
    DiffusionReconstruction,
    DiffusionReconstructor,
    widened,
)
from cldmray.attackers.reconstruction.training import ReconstructionObjective, load_reconstructor
from cldmray.conditions.canny import Canny
from cldmray.errors import BadInputError
from tests.attackers.reconstruction.fitting import fit, save_reconstructor

TRAINING = ReconstructionTraining(
    max_steps=12,
    batch_size=8,
    warmup_steps=2,
    learning_rate=2e-3,
    precision="fp32",
    validate_every=4,
)
TINY = DiffusionReconstruction(sampling_steps=2, n_samples=2, training=TRAINING)
SEEDS = np.arange(12) + 100


@pytest.fixture(scope="module")
def fresh() -> DiffusionReconstructor:
    torch.set_num_threads(1)
    return TINY.build()


class TestWidened:
    def test_it_says_what_it_said_whatever_else_it_reads(self):
        before = nn.Conv2d(2, 5, 3, padding=1)
        after = widened(before, 3)
        seen, more = torch.randn(1, 2, 6, 6), torch.randn(1, 3, 6, 6)
        torch.testing.assert_close(after(torch.cat([seen, more], 1)), before(seen))
        after(torch.cat([seen, more], 1)).square().sum().backward()
        assert after.weight.grad[:, 2:].abs().max() > 0


class TestStart:
    def test_it_begins_as_the_shipped_model(self, fresh):
        from diffusers import UNet2DConditionModel

        shipped = UNet2DConditionModel.from_pretrained(EMBEDDED_FOLDER, subfolder="unet")
        network = fresh.network.eval()
        noisy, given, time = (
            torch.randn(2, 32, 4, 4),
            torch.randn(2, 32, 4, 4),
            torch.tensor([1, 9]),
        )
        with torch.no_grad():
            result = network(noisy, time, given)
            prompt = network.prompt.expand(2, -1, -1)
            expected = shipped.float()(noisy, time, encoder_hidden_states=prompt).sample
        torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)

    def test_a_model_elsewhere_is_the_same_model(self):
        elsewhere = DiffusionReconstruction(model=str(EMBEDDED_FOLDER))
        assert elsewhere.version() == TINY.version() != ""
        assert elsewhere.trained_on() == TINY.trained_on() != frozenset()
        elsewhere.check()

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(BadInputError, match="no such folder"):
            DiffusionReconstruction(model=str(tmp_path / "absent")).check()


class TestLoss:
    def test_what_the_model_predicts_is_the_velocity(self, fresh, pairs):
        """v = sqrt(a) noise - sqrt(1 - a) latents (Salimans and Ho 2022)."""
        goal = ReconstructionObjective(fresh, pairs, TRAINING, 1)
        batch = goal.batch(0, slice(0, 8), torch.device("cpu"))
        seen = []

        def zeros(noisy, time, given):
            seen.append((noisy, time, given))
            return torch.zeros_like(noisy)

        loss = fresh.loss(zeros, batch)
        ((noisy, time, given),) = seen
        with torch.no_grad():
            latents = fresh.autoencoder.encode(batch.originals).latent_dist.mode()
            torch.testing.assert_close(
                given, fresh.autoencoder.encode(batch.anonymized).latent_dist.mode()
            )
        share = fresh.scheduler.alphas_cumprod[time].view(-1, 1, 1, 1)
        noise = (noisy - share.sqrt() * latents) / (1 - share).sqrt()
        velocity = share.sqrt() * noise - (1 - share).sqrt() * latents
        torch.testing.assert_close(loss, velocity.square().mean(), rtol=1e-3, atol=1e-4)
        assert len(set(time.tolist())) > 4

    def test_a_worker_draws_for_its_own_rows_what_one_alone_would(self, fresh, pairs):
        goal = ReconstructionObjective(fresh, pairs, TRAINING, 2)
        cpu = torch.device("cpu")
        with torch.no_grad():
            parts = [
                goal.loss(1, Worker(rank, 2).share(goal.size), fresh.network, cpu)
                for rank in range(2)
            ]
            whole = goal.loss(1, slice(0, 8), fresh.network, cpu)
        torch.testing.assert_close(sum(parts) / 2, whole, rtol=1e-4, atol=1e-5)


class TestLearning:
    def test_the_loss_falls_and_all_survives_in_a_file(self, pairs, tmp_path):
        reconstructor = TINY.build()
        goal = ReconstructionObjective(reconstructor, pairs, TRAINING, 1)
        cpu = torch.device("cpu")

        def evaluated() -> float:
            with torch.no_grad():
                results = [
                    goal.loss(s, slice(0, 8), reconstructor.network, cpu) for s in (90, 91, 92)
                ]
            return float(sum(results)) / 3

        before = evaluated()
        trained = fit(TINY, pairs)
        reconstructor.load_state(trained.state())
        assert evaluated() < 0.9 * before

        first = reconstructor.reconstruct(pairs.anonymized[:4], SEEDS[:4])
        assert first.shape == (4, 2, 32, 32, 3)
        uri = str(tmp_path / "diffusion.safetensors")
        save_reconstructor(reconstructor, uri)
        again = load_reconstructor(TINY, uri).reconstruct(pairs.anonymized[:4], SEEDS[:4])
        np.testing.assert_array_equal(again, first)


class TestReconstruction:
    def test_guesses_depend_on_image_and_seed_alone(self, fresh, pairs):
        images = pairs.anonymized[:4]
        together = fresh.reconstruct(images, SEEDS[:4])
        turned = fresh.reconstruct(images[::-1][:3], SEEDS[:4][::-1][:3])
        assert np.abs(turned.astype(int) - together[::-1][:3]).max() <= 1
        assert (fresh.reconstruct(images, SEEDS[4:8]) != together).mean() > 0.5
        assert (together[:, 0] != together[:, 1]).mean() > 0.5
        assert fresh.reconstruct(images[:0], SEEDS[:0]).shape == (0, 2, 32, 32, 3)

    def test_sides_that_cannot_be_drawn(self, fresh):
        with pytest.raises(BadInputError, match="24x32 pixels .* multiples of 32"):
            fresh.reconstruct(np.zeros((1, 32, 24, 3), np.uint8), SEEDS[:1])

    def test_edges_are_read_at_the_latents_size(self, pairs):
        settings = DiffusionReconstruction(
            condition=Canny(20, 40),
            pretrained=False,
            sampling_steps=1,
            n_samples=1,
            training=TRAINING,
        )
        reconstructor = settings.build()
        assert reconstructor.network.unet.conv_in.in_channels == 32 + 32 + 256
        goal = ReconstructionObjective(reconstructor, pairs, TRAINING, 1)
        goal.loss(0, slice(0, 8), reconstructor.network, torch.device("cpu")).backward()
        gradient = reconstructor.network.unet.conv_in.weight.grad
        assert (gradient[:, 64:].abs().amax((0, 2, 3)) > 0).all()
        assert reconstructor.reconstruct(pairs.anonymized[:2], SEEDS[:2]).shape == (2, 1, 32, 32, 3)


@pytest.mark.parametrize("settings", [{"model": ""}, {"sampling_steps": 0}, {"n_samples": 0}])
def test_errors_name_the_key(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        DiffusionReconstruction(**settings)


def test_names():
    assert TINY.name == "diffusion"
    assert TINY.guesses == 2

"""What a training wraps and minimises: ControlNets together, their choice, the losses."""

from typing import Any

import numpy as np
import pytest
import torch

from cldmray.models import cldm, cldm_networks


@pytest.fixture(autouse=True)
def repeatable() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(6, 3, 32, 32) * 2 - 1


class TestControlNets:
    @pytest.fixture
    def inputs(self, small: cldm.CldmArchitecture) -> dict[str, Any]:
        return {
            "noisy": torch.randn(3, 8, 4, 4),
            "timesteps": torch.tensor([10, 900, 500]),
            "prompt": torch.randn(1, small.text_length, small.text_width),
            "maps": torch.zeros(3, 2, 3, 32, 32),
            "acts": torch.tensor([[True, False], [False, True], [True, True]]),
            "keep": torch.ones(3),
        }

    @pytest.fixture
    def model(self, small: cldm.CldmArchitecture) -> cldm_networks.ConditionedDenoiser:
        unet = cldm.build_unet(small)
        controlnets = {name: cldm.build_controlnet(unet, small) for name in ("canny", "depth")}
        return cldm_networks.ConditionedDenoiser(unet, controlnets)

    def test_every_condition_counts_from_the_start(
        self, model: cldm_networks.ConditionedDenoiser, inputs: dict[str, Any]
    ) -> None:
        inputs["maps"] = torch.rand(3, 2, 3, 32, 32)
        output = model(**inputs)
        assert output.shape == inputs["noisy"].shape
        output.pow(2).sum().backward()
        for controlnet in model.controlnets.values():
            embedding = controlnet.controlnet_cond_embedding
            gradients = [float(p.grad.abs().max()) for p in embedding.parameters()]
            assert min(gradients) > 0

    def test_an_image_sees_its_own_conditions_only(
        self, model: cldm_networks.ConditionedDenoiser, inputs: dict[str, Any]
    ) -> None:
        changed = inputs["maps"].clone()
        changed[:, 0] = 1
        with torch.no_grad():
            before, after = model(**inputs), model(**{**inputs, "maps": changed})
        difference = (before - after).abs().amax((1, 2, 3))
        assert difference[0] > 1e-5 and difference[2] > 1e-5
        assert difference[1] == 0

    def test_two_conditions_act_as_in_the_pipelines(
        self, model: cldm_networks.ConditionedDenoiser, inputs: dict[str, Any]
    ) -> None:
        inputs["maps"] = torch.rand(3, 2, 3, 32, 32)
        text = inputs["prompt"].expand(3, -1, -1)
        with torch.no_grad():
            output = model(**inputs)
            both = [
                net(
                    inputs["noisy"], inputs["timesteps"], encoder_hidden_states=text,
                    controlnet_cond=inputs["maps"][:, number], return_dict=False,
                )
                for number, net in enumerate(model.controlnets.values())
            ]  # fmt: skip
            expected = model.unet(
                inputs["noisy"], inputs["timesteps"], encoder_hidden_states=text,
                down_block_additional_residuals=[
                    a + b for a, b in zip(both[0][0], both[1][0], strict=True)
                ],
                mid_block_additional_residual=both[0][1] + both[1][1],
            ).sample  # fmt: skip
        torch.testing.assert_close(output[2], expected[2])

    def test_a_dropped_condition_does_not_count(
        self, model: cldm_networks.ConditionedDenoiser, inputs: dict[str, Any]
    ) -> None:
        inputs["keep"] = torch.tensor([1.0, 0.0, 1.0])
        other = {**inputs, "maps": 1 - inputs["maps"]}
        with torch.no_grad():
            first, second = model(**inputs), model(**other)
            bare = model.unet(
                inputs["noisy"], inputs["timesteps"], inputs["prompt"].expand(3, -1, -1)
            ).sample
        assert (first[0] - second[0]).abs().max() > 1e-5
        torch.testing.assert_close(first[1], second[1], atol=0, rtol=0)
        torch.testing.assert_close(first[1], bare[1])


class TestChooseConditions:
    def test_shares_are_equal_and_pairs_as_asked(self) -> None:
        generator = torch.Generator().manual_seed(3)
        acts = torch.cat(
            [cldm_networks.choose_conditions(63, 3, 0.2, generator) for _ in range(100)]
        )
        assert set(acts.sum(1).tolist()) == {1, 2}
        assert float((acts.sum(1) == 2).float().mean()) == pytest.approx(0.2, abs=0.02)
        alone = acts[acts.sum(1) == 1].float().mean(0)
        assert alone.tolist() == pytest.approx([1 / 3] * 3, abs=0.02)

    def test_every_condition_acts_in_every_batch(self) -> None:
        generator = torch.Generator().manual_seed(0)
        for _ in range(20):
            assert cldm_networks.choose_conditions(3, 3, 0.0, generator).sum(0).tolist() == [
                1,
                1,
                1,
            ]

    def test_a_single_condition_acts_always(self) -> None:
        assert (
            cldm_networks.choose_conditions(5, 1, 1.0, torch.Generator()).tolist() == [[True]] * 5
        )


class TestAutoencoderLoss:
    def test_equal_images(self, images: torch.Tensor) -> None:
        assert float(cldm_networks.autoencoder_loss(images, images)) == 0

    def test_a_constant_difference_by_hand(self, images: torch.Tensor) -> None:
        loss = cldm_networks.autoencoder_loss(images + 0.25, images)
        assert float(loss) == pytest.approx(0.25 * (1 + 0.5 + 0.5), abs=1e-5)

    def test_one_pixel_by_hand(self) -> None:
        flat, dot = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
        dot[0, 0, 1, 1] = 1
        pixel = 1 / 16
        pooled = 0.5 * (1 / 4) / 4 + 0.5 * (1 / 16) / 1
        slopes = 2 / 12 + 2 / 12
        assert float(cldm_networks.autoencoder_loss(dot, flat)) == pytest.approx(
            pixel + pooled + slopes
        )


def test_the_divergence_by_hand(images: torch.Tensor, small: cldm.CldmArchitecture) -> None:
    autoencoder = cldm.build_autoencoder(small)
    with torch.no_grad():
        autoencoder.quant_conv.weight.zero_()
        autoencoder.quant_conv.bias[:8] = 2.0
        autoencoder.quant_conv.bias[8:] = float(np.log(3.0))
        noise = torch.randn(6, 8, 4, 4)
        output, divergence = cldm_networks.SampledAutoencoder(autoencoder)(images, noise)
    assert output.shape == images.shape
    assert float(divergence) == pytest.approx(0.5 * (4 + 3 - 1 - np.log(3)), rel=1e-5)

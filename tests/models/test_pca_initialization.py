"""The autoencoder's head start: an encoder that begins as principal components."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from cldmray.models import cldm
from cldmray.models.pca_initialization import initialize_from_components, patch_components

ARCH = cldm.CldmArchitecture(
    size=32, latent_channels=12, autoencoder_channels=(16, 48, 64, 64), unet_channels=(16, 32)
)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Smooth random images in -1..1."""
    coarse = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    fine = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bicubic")
    return (0.4 * fine).clamp(-1, 1)


def patches(images: torch.Tensor) -> np.ndarray:
    """8x8 patches, one a row, in the order that rounds of space-to-depth give."""
    rows = []
    for image in images.numpy():
        for top in range(0, image.shape[1], 8):
            for left in range(0, image.shape[2], 8):
                row = []
                for place in range(64):
                    bits = [(place >> shift) & 1 for shift in range(5, -1, -1)]
                    y = 4 * bits[0] + 2 * bits[2] + bits[4]
                    x = 4 * bits[1] + 2 * bits[3] + bits[5]
                    row.extend(image[:, top + y, left + x])
                rows.append(row)
    return np.array(rows)


def test_components_are_those_of_scikit_learn(images: torch.Tensor) -> None:
    mean, components = patch_components(images, 12)
    rows = patches(images)
    expected = PCA(12, whiten=True).fit(rows)
    np.testing.assert_allclose(mean, rows.mean(0), atol=1e-5)
    scores = (rows - mean.numpy()) @ components.numpy().T
    np.testing.assert_allclose(np.abs(scores), np.abs(expected.transform(rows)), atol=2e-2)


def test_the_encoder_starts_as_the_components(images: torch.Tensor) -> None:
    torch.manual_seed(1)
    autoencoder = cldm.build_autoencoder(ARCH)
    initialize_from_components(autoencoder, images)
    mean, components = patch_components(images, 12)
    with torch.no_grad():
        latents = autoencoder.encode(images).latent_dist.mean
    scores = (patches(images) - mean.numpy()) @ components.numpy().T
    result = latents.permute(0, 2, 3, 1).reshape(-1, 12).numpy()
    for latent in range(12):
        assert np.corrcoef(result[:, latent], scores[:, latent])[0, 1] > 0.9


def test_every_weight_but_the_silent_branches_can_learn(images: torch.Tensor) -> None:
    autoencoder = cldm.build_autoencoder(ARCH)
    initialize_from_components(autoencoder, images)
    posterior = autoencoder.encode(images[:4]).latent_dist
    output = autoencoder.decode(posterior.mean).sample
    (output.square().mean() + posterior.logvar.mean()).backward()
    still = [
        name
        for name, parameter in autoencoder.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().max() > 0
    ]
    assert all(".conv1." in name or ".norm1." in name or ".norm2." in name for name in still)


@pytest.mark.parametrize(
    "channels",
    [(8, 48, 64, 64), (16, 40, 64, 64), (16, 48, 40, 40), (16, 48, 48, 64), (16, 48, 64)],
)
def test_too_narrow_an_autoencoder_is_named(channels: tuple[int, ...]) -> None:
    autoencoder = cldm.build_autoencoder(replace(ARCH, autoencoder_channels=channels))
    with pytest.raises(ValueError, match="^autoencoder_channels: "):
        initialize_from_components(autoencoder, torch.zeros(2, 3, 32, 32))

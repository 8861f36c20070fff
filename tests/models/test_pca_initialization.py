"""The autoencoder's head start: an encoder that begins as principal components."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from cldmray.models import cldm
from cldmray.models.pca_initialization import initialize_from_components, patch_components

ARCH = cldm.CldmArchitecture(
    size=32,
    latent_channels=12,
    autoencoder_channels=(16, 48, 64, 64),
    unet_channels=(16, 32),
    condition_channels=(8, 16, 32, 64),
)
ALL = (12, 48, 12)
"""Components that each level keeps: all, until the patches are of 8x8 pixels."""


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
    *whole, (mean, components) = patch_components(images, ALL)
    for (centre, kept), size in zip(whole, (12, 48), strict=True):
        assert (centre == 0).all()
        torch.testing.assert_close(kept, torch.eye(size))
    rows = patches(images)
    expected = PCA(12, whiten=True).fit(rows)
    np.testing.assert_allclose(mean, rows.mean(0), atol=1e-5)
    scores = (rows - mean.numpy()) @ components.numpy().T
    np.testing.assert_allclose(np.abs(scores), np.abs(expected.transform(rows)), atol=2e-2)


def test_the_encoder_starts_as_the_components(images: torch.Tensor) -> None:
    torch.manual_seed(1)
    autoencoder = cldm.build_autoencoder(ARCH)
    initialize_from_components(autoencoder, images)
    mean, components = patch_components(images, ALL)[-1]
    with torch.no_grad():
        latents = autoencoder.encode(images).latent_dist.mean
    scores = (patches(images) - mean.numpy()) @ components.numpy().T
    result = latents.permute(0, 2, 3, 1).reshape(-1, 12).numpy()
    for latent in range(12):
        assert np.corrcoef(result[:, latent], scores[:, latent])[0, 1] > 0.9


def test_levels_before_the_last_keep_leading_components_of_unit_norm(images: torch.Tensor) -> None:
    mean, kept = patch_components(images, (12, 48, 40, 12))[2]
    rows = patches(images)
    np.testing.assert_allclose(mean, rows.mean(0), atol=1e-5)
    torch.testing.assert_close(kept @ kept.T, torch.eye(40), atol=1e-5, rtol=0)
    scores = (rows - mean.numpy()) @ kept.numpy().T
    variances = PCA(40).fit(rows).explained_variance_
    np.testing.assert_allclose(scores.var(0, ddof=1), variances, rtol=1e-3)


def test_an_encoder_of_five_levels_starts_as_the_components(images: torch.Tensor) -> None:
    deep = replace(
        ARCH, autoencoder_channels=(16, 32, 48, 64, 64), condition_channels=(8, 8, 8, 8, 8)
    )
    torch.manual_seed(1)
    autoencoder = cldm.build_autoencoder(deep)
    initialize_from_components(autoencoder, images)
    with torch.no_grad():
        latents = autoencoder.encode(images).latent_dist.mean
    assert latents.shape == (40, *deep.latent_shape) == (40, 12, 2, 2)
    scores = images
    for mean, components in patch_components(images, (16, 32, 48, 12)):
        batch, channels, height, width = scores.shape
        folded = scores.reshape(batch, channels, height // 2, 2, width // 2, 2)
        folded = folded.permute(0, 3, 5, 1, 2, 4).reshape(batch, -1, height // 2, width // 2)
        scores = torch.einsum("nchw,kc->nkhw", folded - mean[:, None, None], components)
    for latent in range(12):
        pair = torch.stack([latents[:, latent].flatten(), scores[:, latent].flatten()])
        assert torch.corrcoef(pair)[0, 1] > 0.9


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
    [
        (8, 48, 64, 64),
        (16, 8, 64, 64),
        (16, 48, 40, 40),
        (16, 48, 48, 64),
        (16, 48, 64),
    ],
)
def test_too_narrow_an_autoencoder_is_named(channels: tuple[int, ...]) -> None:
    arch = replace(ARCH, autoencoder_channels=channels, condition_channels=(8,) * len(channels))
    autoencoder = cldm.build_autoencoder(arch)
    with pytest.raises(ValueError, match="^autoencoder_channels: "):
        initialize_from_components(autoencoder, torch.zeros(2, 3, 32, 32))

import pytest

from cldmray.models import cldm


@pytest.fixture(scope="session")
def small() -> cldm.CldmArchitecture:
    """An architecture that is built and run within a second."""
    return cldm.CldmArchitecture(
        size=32,
        latent_channels=8,
        autoencoder_channels=(8, 8, 16, 16),
        unet_channels=(16, 32),
        condition_channels=(8, 8, 16, 16),
        text_width=16,
        text_length=32,
    )

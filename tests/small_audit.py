"""A small audit that many tests begin with: its settings, and the images that they share.

The fixture ``cache_dir`` (``tests/conftest.py``) holds these images already, so that a test of
attacks, studies or jobs runs its own stages only.
"""

from pathlib import Path

from hydra import compose, initialize_config_dir

from cldmray.config.audit import AuditConfig, build_audit

CONF = Path(__file__).resolve().parents[1] / "conf"
N_EVALUATED, IMAGES = 6, 4
SMALL = [
    "faces.n_identities=20",
    "faces.size=64",
    f"faces.images_per_identity={IMAGES}",
    f"splits.n_evaluation_identities={N_EVALUATED}",
    f"splits.min_images={IMAGES}",
    "splits.validation_fraction=0.3",
    "audit.n_bootstrap=100",
    "audit.n_example_images=4",
    "engine.progress=false",
]
"""20 synthetic people, 4 small images each: 6 to evaluate, 10 of the attacker, 4 to validate."""
K_SAME = "anonymizers.k_same.k=4"
CLDM_CANNY = "anonymizers.cldm_canny.num_inference_steps=2"
PREPARED = [
    "anonymizers=[no_op,blur,k_same,cldm_canny]",
    K_SAME,
    CLDM_CANNY,
    "attackers=[adaptive_contrastive]",
]
"""What is made of them beforehand, of attacker people too."""


def weak(*attackers: str) -> list[str]:
    """Overrides that train the attackers for an instant."""
    settings = (
        "encoder.width=8",
        "training.max_steps=6",
        "training.batch_size=16",
        "training.warmup_steps=2",
    )
    return [f"attackers.{attacker}.{setting}" for attacker in attackers for setting in settings]


def configured(folder: Path, *overrides: str) -> AuditConfig:
    """An audit whose artifacts lie in ``folder/cache`` and whose report in ``folder/out``."""
    places = [f"cache_dir={folder}/cache", f"output={folder}/out"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return build_audit(compose("audit", [*overrides, *places]))

"""Configuration keys that have another name now, each with the new one."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cldmray.config.files import shipped
from cldmray.errors import ConfigError

KEYS = {
    "anonymizer": "anonymizers",
    "attack": "attackers",
    "attack_size": "preset",
    "inversion": "reconstruction",
    "inverter": "reconstruction_model",
    "work": "cache_dir",
}
"""Old key or group at the top: its new name."""

OPTIONS = {
    "anonymizers": {"copy": "no_op", "pictures": "precomputed"},
    "attackers": {
        "off_the_shelf": "pretrained",
        "off_the_shelf_onnx": "pretrained_onnx",
        "clear_trained": "clean_trained",
        "edge_match": "condition_match",
        "edge_proxy": "condition_only",
        "edge_proxy_teacher": "condition_only_distilled",
        "adaptive": "adaptive_contrastive",
        "adaptive_teacher": "adaptive_distilled",
        "adaptive_edges": "adaptive_condition",
        "adaptive_resnet50": "adaptive_contrastive_resnet50",
        "fusion": "score_fusion",
        "inversion": "reconstruction",
        "inversion_best": "reconstruction_best",
    },
    "reconstruction_model": {"look_alike": "nearest_neighbor"},
    "training": {
        "edges_large": "condition_large",
        "edges_small": "condition_small",
        "taught_large": "distilled_large",
        "taught_small": "distilled_small",
    },
}
"""Old option of a group: its new name, by the group's new name."""

TRAINING = {
    "steps": "max_steps",
    "batch": "batch_size",
    "warmup": "warmup_steps",
    "cache_chunk": "micro_batch_size",
}
RECONSTRUCTION = {
    "inverter": "model",
    "inverters": "models",
    "judge": "held_out_recognizer",
    "validator": "validation_recognizer",
}
SETTINGS = {
    "anonymizers": {
        "steps": "num_inference_steps",
        "guidance": "guidance_scale",
        "scale": "controlnet_conditioning_scale",
        "start": "control_guidance_start",
        "end": "control_guidance_end",
    },
    "attackers": {
        "start_from": "init_from",
        "frozen": "n_frozen_layers",
        "fold": "patch_size",
        **TRAINING,
        **RECONSTRUCTION,
    },
    "attribution": {"boundary": "operating_point", "pictures": "n_images"},
    "audit": {
        "attacker_draws": "samples_per_image",
        "attacker_seeds": "n_training_seeds",
        "grid_pictures": "n_example_images",
        "level": "confidence_level",
        "max_bad_share": "max_invalid_fraction",
        "min_clear_rank_1": "min_clean_rank_1",
        "resamples": "n_bootstrap",
        "utility_pictures": "n_utility_images",
    },
    "faces": {"people": "n_identities", "photos_per_person": "images_per_identity"},
    "reconstruction": {
        "choose": "choices",
        "concurrent": "max_concurrent_trials",
        "grace": "grace_period",
        "grid_pictures": "n_example_images",
        "reduction": "reduction_factor",
        "whole": "integer",
        **TRAINING,
        **RECONSTRUCTION,
    },
    "splits": {
        "background": "auxiliary",
        "background_share": "auxiliary_fraction",
        "evaluation_people": "n_evaluation_identities",
        "min_photos": "min_images",
        "validation_share": "validation_fraction",
    },
    "training": {
        "together": "two_conditions_fraction",
        "variants": "copies_per_image",
        **TRAINING,
    },
}
"""Old name of a setting: its new name, by the new name of the key at the top."""


VALUED = {
    *("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp"),
    *("--package", "-p", "--cfg", "-c", "--experimental-rerun"),
}
"""Options of Hydra whose values are arguments of their own."""


def renamed_key(key: str) -> str | None:
    """The key that takes the place of a retired one; None where nothing of it is retired.

    Settings of anonymizers and attackers from outside are left alone: they may be called as their
    authors like.

    Args:
        key: dotted from the top.

    >>> renamed_key("attack.adaptive.training.steps")
    'attackers.adaptive_contrastive.training.max_steps'
    >>> renamed_key("attackers.adaptive_contrastive.training.max_steps") is None
    True
    """
    top, *inner = key.replace("/", ".").split(".")
    top = KEYS.get(top, top)
    if inner and top in OPTIONS:
        inner[0] = OPTIONS[top].get(inner[0], inner[0])
    own = top in ("anonymizers", "attackers") and inner and not shipped(top, inner[0])
    settings = {} if own else SETTINGS.get(top, {})
    renamed = ".".join([top, *(settings.get(part, part) for part in inner)])
    return None if renamed == key.replace("/", ".") else renamed


def refuse_retired_overrides(overrides: Iterable[str]) -> None:
    """Check command-line overrides before Hydra composes, whose message knows no new names.

    Args:
        overrides: as on the command line, for example ``anonymizer=[blur]``, ``+attack.x.y=3`` or
            ``~work``; options and their values, as in ``--config-dir work``, are passed over.

    Raises:
        ConfigError: one has a retired key or option; the message names the new one.

    >>> refuse_retired_overrides(["anonymizers=[blur]", "audit.seed=1"])
    >>> refuse_retired_overrides(["anonymizer=[blur]"])
    Traceback (most recent call last):
    cldmray.errors.ConfigError: anonymizer: now called anonymizers, for example anonymizers=[blur]
    """
    before = ""
    for override in overrides:
        is_value, before = before in VALUED, override
        key, equals, value = override.partition("=")
        if is_value or key.startswith("-"):
            continue
        group, _, place = key.lstrip("+~").partition("@")
        for old in (group, place):
            if renamed := old and renamed_key(old):
                example = f", for example {renamed}={value}" if equals and not place else ""
                raise ConfigError(f"{old}: now called {renamed}{example}")
        for option in re.findall(r"[\w.-]+", value):
            if renamed := OPTIONS.get(group, {}).get(option):
                raise ConfigError(f"{group}: {option} is now called {renamed}")


def refuse_retired_keys(settings: Mapping[str, Any]) -> None:
    """Check a whole composed configuration.

    Raises:
        ConfigError: a key is retired; the message names the new one.
    """
    for key in _keys(settings, ""):
        if renamed := renamed_key(key):
            raise ConfigError(f"{key}: now called {renamed}")


def _keys(node: Mapping[str, Any], path: str) -> Iterator[str]:
    for key, value in node.items():
        place = f"{path}{key}"
        yield place
        if isinstance(value, Mapping) and "_target_" not in value:
            yield from _keys(value, f"{place}.")

"""Who is in the laboratory, and what anonymizes their images: options of its commands."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

ANONYMIZERS = ("cldm_canny", "cldm_none", "canny_map", "blur", "pixelate")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that :func:`laboratory_of` reads."""
    parser.add_argument("--cache", type=Path, help="folder, outside of the repository")
    parser.add_argument("--root", help="folder of LFW or of ``--layout``; none: synthetic people")
    parser.add_argument("--layout", choices=("lfw", "folder"), default="lfw")
    parser.add_argument("--anonymizer", choices=ANONYMIZERS, default="cldm_canny")
    parser.add_argument("--model", help="folder of another CLDM than the embedded one")
    parser.add_argument("--size", type=int, default=128, help="side of the images, pixels")
    parser.add_argument("--side", type=int, help="at which the CLDM works; none: what it draws")
    parser.add_argument("--attackers", type=int, default=600, help="people to learn from")
    parser.add_argument("--validation", type=int, default=150, help="people, at most")
    parser.add_argument("--images", type=int, default=5, help="of each person, at most")
    parser.add_argument("--final", action="store_true", help="rate evaluation people")


def laboratory_of(options: argparse.Namespace) -> Any:
    """The laboratory that some options ask for; imports torch."""
    from attacking.cache import CachedImages, Plan, chosen_rows
    from attacking.laboratory import Laboratory
    from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, EVALUATION
    from cldmray.faces.splits import SplitConfig

    learn, rate = options.attackers, options.validation
    splits = SplitConfig()
    if options.root is None:
        splits = SplitConfig(min_images=options.images, validation_fraction=rate / (learn + rate))
    plan = Plan(learn, rate, max_images=options.images, splits=splits)
    source = source_of(options, learn + rate + splits.n_evaluation_identities)
    anonymizer = anonymizer_of(options.anonymizer, options.model, options.side)
    attackers, probed = (
        CachedImages(
            source, anonymizer, chosen_rows(source, anonymizer, split, plan), options.cache, split
        )
        for split in (ATTACKER, EVALUATION if options.final else ATTACKER_VALIDATION)
    )
    return Laboratory(attackers, probed, options.cache)


def model_name(folder: str | None) -> str:
    """Name of a CLDM's folder; None: of the embedded one."""
    from cldmray.anonymizers.diffusion.model_folder import EMBEDDED_FOLDER

    return EMBEDDED_FOLDER.name if folder is None else Path(folder).name


def source_of(options: argparse.Namespace, count: int) -> Any:
    """LFW, a folder of aligned images in one sub-folder a person, or so many synthetic people."""
    from attacking.identities import SYNTHETIC_SEED
    from cldmray.faces import LfwFaces, SyntheticFaces
    from cldmray.faces.sources.folder import FolderFaces

    size = options.size
    if options.root is None:
        return SyntheticFaces(
            n_identities=count, images_per_identity=options.images, seed=SYNTHETIC_SEED, size=size
        )
    if options.layout == "folder":
        return FolderFaces(options.root, align="none", size=size)
    return LfwFaces(options.root, size=size)


def anonymizer_of(name: str, model: str | None, side: int | None) -> Any:
    """An anonymizer by its name; CLDMs sample as audits let them.

    Args:
        name: one of ``ANONYMIZERS``.
        model: folder of the CLDM; None: the embedded one.
        side: at which the CLDM works, pixels; None: at the size that it draws.
    """
    from quality.drawing import configured, model_size

    from cldmray.anonymizers.baselines import Blur, ConditionMap, Pixelate
    from cldmray.conditions import Canny

    if name.startswith("cldm"):
        anonymizer = configured(name, **({} if model is None else {"model": model}))
        return replace(anonymizer, input_side=side or model_size(anonymizer))
    return {"canny_map": ConditionMap(Canny()), "blur": Blur(), "pixelate": Pixelate()}[name]

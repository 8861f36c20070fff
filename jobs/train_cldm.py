"""Train the small CLDM on background people: ``python jobs/train_cldm.py faces.root=DIR``"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from cldmray.conditions.base import Condition
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.phases import CldmTraining
from cldmray.errors import CldmrayError
from cldmray.faces.source import FaceSource
from cldmray.faces.splits import SplitConfig


@dataclass(frozen=True)
class TrainingJob:
    """The job's configuration, checked."""

    faces: FaceSource
    condition: Condition
    engine: EngineConfig
    splits: SplitConfig
    training: CldmTraining
    output: str


def main(composed: DictConfig) -> None:
    """Load the background people, train, save a diffusers folder with its card."""
    from cldmray.anonymizers import cldm, cldm_card
    from cldmray.building import build, plain
    from cldmray.engine.cldm_training import train_cldm
    from cldmray.engine.cluster import connect
    from cldmray.engine.pictures import load_split
    from cldmray.faces.records import BACKGROUND

    settings = plain(composed)
    job: TrainingJob = build(settings, TrainingJob, "")
    connect(job.engine)
    pictures, people = load_split(job.faces, job.splits, BACKGROUND)
    print(f"training on {len(pictures)} photos of {len(set(people))} people", flush=True)
    architecture = cldm.CldmArchitecture(size=job.faces.size)
    parts = train_cldm(pictures, job.condition, job.training, architecture)
    folder = Path(job.output)
    cldm.save_controlnet_pipeline(folder, parts)
    modules = {key: parts[key] for key in ("vae", "unet", "text_encoder")}
    modules |= {f"controlnet-{name}": net for name, net in parts["controlnets"].items()}
    decisive: dict[str, Any] = {
        key: {name: value for name, value in settings[key].items() if name != "storage"}
        for key in ("training", "splits", "condition")
    }
    cldm_card.write_card(
        folder, job.faces.name, people, [job.condition.name], modules, decisive, job.faces.size
    )
    print(f"saved {folder}")


@hydra.main(config_path="../conf", config_name="cldm", version_base="1.3")
def cli(composed: DictConfig) -> None:
    try:
        main(composed)
    except CldmrayError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    cli()

"""Train the small CLDM on auxiliary people: ``python jobs/train_cldm.py faces.root=DIR``"""

import logging
from dataclasses import dataclass
from pathlib import Path

import hydra
from omegaconf import DictConfig

from cldmray.cli.runtime import run_or_exit
from cldmray.pipelines.jobs import connected

logger = logging.getLogger("cldmray")


def main(composed: DictConfig) -> None:
    """Load the auxiliary people, train, save a diffusers folder with its card and samples."""
    import numpy as np

    from cldmray.conditions.base import Condition
    from cldmray.config.instantiate import build, plain
    from cldmray.engine.cluster import EngineConfig
    from cldmray.engine.faces import load_all, load_split
    from cldmray.faces.base import FaceSource
    from cldmray.faces.records import AUXILIARY
    from cldmray.faces.splits import SplitConfig
    from cldmray.faces.synthetic import SyntheticFaces
    from cldmray.models import cldm, cldm_card
    from cldmray.models.cldm_training import CldmTraining, train_cldm
    from cldmray.models.variants import image_variants
    from cldmray.report.image_grid import image_grid
    from cldmray.results.audit import Grid, GridRow
    from cldmray.tracking import DeferredErrors, TrackingConfig
    from cldmray.tracking.layouts import record_training

    @dataclass(frozen=True)
    class Job:
        faces: FaceSource
        synthetic: SyntheticFaces
        conditions: dict[str, Condition]
        engine: EngineConfig
        tracking: TrackingConfig
        splits: SplitConfig
        training: CldmTraining
        output: str

    settings = plain(composed)
    job = build(settings, Job, "")
    tracker = connected(job.tracking, job.engine, output=job.output)
    originals, identities = load_split(job.faces, job.splits, AUXILIARY)
    rendered, invented = load_all(job.synthetic)
    logger.info(
        f"training on {len(originals)} images of {len(set(identities))} people and on {len(rendered)} "
        f"rendered images of {len(set(invented))} people who do not exist"
    )
    variants = image_variants(originals, job.training.variants, job.training.seed)
    folder = Path(job.output)
    with DeferredErrors() as cache_dir, tracker.training_run(folder.name, settings) as run:
        architecture = cldm.CldmArchitecture(size=job.faces.size)
        trained = train_cldm(
            variants,
            np.concatenate([variants, rendered]),
            job.conditions,
            job.training,
            architecture,
        )
        cldm.save_controlnet_pipeline(folder, trained.parts)
        cldm_card.write_card(
            folder,
            {job.faces.name: identities, job.synthetic.name: invented},
            trained.parts,
            {key: settings[key] for key in cldm_card.DECISIVE},
            architecture.size,
        )
        drawn = cldm_card.samples(folder, rendered[:8], job.conditions)
        rows = [GridRow(name, maps, images) for name, (maps, images) in drawn.items()]
        files = {
            "samples.png": image_grid(Grid(rendered[:8], rows)),
            "README.md": (folder / cldm_card.CARD_FILE).read_bytes(),
        }
        cache_dir.written(job.output)
        record_training(run, trained.curves, files)
    logger.info(f"saved {folder}")
    cache_dir.end()


@hydra.main(config_path="../conf", config_name="cldm", version_base="1.3")
def cli(composed: DictConfig) -> None:
    run_or_exit(main, composed)


if __name__ == "__main__":
    cli()

"""Train the depth network on rendered people: ``python jobs/train_depth.py``"""

import logging
from dataclasses import dataclass
from pathlib import Path

import hydra
from omegaconf import DictConfig

from cldmray.cli.runtime import run_or_exit
from cldmray.pipelines.jobs import connected

logger = logging.getLogger("cldmray")


def main(composed: DictConfig) -> None:
    """Render people with their true depth, train, save the network with its card."""
    from cldmray.conditions.depth_network import DepthArchitecture
    from cldmray.config.instantiate import build, plain
    from cldmray.engine.cluster import EngineConfig
    from cldmray.faces.synthetic import SyntheticFaces
    from cldmray.models import depth_card
    from cldmray.models.depth_training import DepthTraining, render_people, train_depth
    from cldmray.tracking import DeferredErrors, TrackingConfig
    from cldmray.tracking.layouts import record_training

    @dataclass(frozen=True)
    class Job:
        faces: SyntheticFaces
        engine: EngineConfig
        tracking: TrackingConfig
        training: DepthTraining
        architecture: DepthArchitecture
        output: str

    settings = plain(composed)
    job = build(settings, Job, "")
    tracker = connected(job.tracking, job.engine, output=job.output)
    with DeferredErrors() as cache_dir, tracker.training_run("depth network", settings) as run:
        rendered = render_people(job.faces)
        logger.info(f"training on {len(rendered.images)} rendered images")
        network, curve = train_depth(rendered, job.training, job.architecture)
        folder = Path(job.output)
        depth_card.save_depth(folder, network, job.architecture, settings)
        cache_dir.written(job.output)
        record_training(run, {"depth": curve}, {"README.md": (folder / "README.md").read_bytes()})
    logger.info(f"saved {folder}")
    cache_dir.end()


@hydra.main(config_path="../conf", config_name="depth", version_base="1.3")
def cli(composed: DictConfig) -> None:
    run_or_exit(main, composed)


if __name__ == "__main__":
    cli()

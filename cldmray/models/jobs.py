"""The two training jobs: from faces to a saved model with its card, recorded in MLflow."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cldmray.conditions.base import Condition
from cldmray.conditions.depth_network import DepthArchitecture
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.map_stages.faces import load_images
from cldmray.faces.base import FaceSource
from cldmray.faces.records import AUXILIARY
from cldmray.faces.splits import SplitConfig
from cldmray.faces.synthetic import SyntheticFaces
from cldmray.models import cldm, cldm_card, depth_card
from cldmray.models.cldm_training import CldmTraining, TrainedCldm, train_cldm
from cldmray.models.depth_training import DepthTraining, render_heads, train_depth
from cldmray.models.training_images import pack_copies, read_here, split_rows
from cldmray.report.figures.image_grid import image_grid
from cldmray.results.audit import Grid, GridRow
from cldmray.tracking import DeferredErrors, Tracker, TrackingConfig
from cldmray.tracking.layouts import record_training

logger = logging.getLogger(__name__)

N_SAMPLES = 8
"""Images that a trained CLDM is shown with."""


@dataclass(frozen=True)
class CldmJob:
    """Configuration of ``jobs/train_cldm.py``.

    Attributes:
        faces: the model learns from the auxiliary identities of this source.
        synthetic: rendered identities, from all of whom it learns, too.
        conditions: by the names that their ControlNets get.
        engine: the cluster.
        tracking: where the run is recorded.
        splits: who is auxiliary.
        architecture: widths of the networks.
        training: how it is trained.
        output: folder of the pipeline.
    """

    faces: FaceSource
    synthetic: SyntheticFaces
    conditions: dict[str, Condition]
    engine: EngineConfig
    tracking: TrackingConfig
    splits: SplitConfig
    architecture: cldm.CldmArchitecture
    training: CldmTraining
    output: str


@dataclass(frozen=True)
class DepthJob:
    """Configuration of ``jobs/train_depth.py``.

    Attributes:
        faces: the network learns from these rendered heads.
        engine: the cluster.
        tracking: where the run is recorded.
        training: how it is trained.
        architecture: of the network.
        output: folder of the network.
    """

    faces: SyntheticFaces
    engine: EngineConfig
    tracking: TrackingConfig
    training: DepthTraining
    architecture: DepthArchitecture
    output: str


def run_cldm_training(job: CldmJob, settings: Mapping[str, Any], tracker: Tracker) -> None:
    """Train the small CLDM, and save it as a diffusers folder with its card and samples.

    Args:
        settings: the composed configuration, for the card and the record.
        tracker: records the run.

    Raises:
        CldmrayError: there are no images, the training failed, or it could not be recorded.
    """
    sources: list[tuple[FaceSource, pa.Table]] = [
        (job.faces, split_rows(job.faces, job.splits, AUXILIARY)),
        (job.synthetic, job.synthetic.listing()),
    ]
    training, arrays = job.training, Path(job.training.arrays)
    if training.workers:
        loaded = [load_images(source, listing) for source, listing in sources]
    else:
        loaded = [read_here(source, listing, arrays) for source, listing in sources]
    for (source, _), (images, identities) in zip(sources, loaded, strict=True):
        count = len(set(identities))
        logger.info(f"training on {len(images)} images of {count} identities of {source.name}")
    originals = [images for images, _ in loaded]
    images = pack_copies(originals, training.copies_per_image, training.seed, arrays)
    folder = Path(job.output)
    with DeferredErrors() as errors, tracker.job_run("training", folder.name, settings) as run:
        trained = train_cldm(images, job.conditions, training, job.architecture)
        identities_of = {
            source.name: identities
            for (source, _), (_, identities) in zip(sources, loaded, strict=True)
        }
        _save_cldm(folder, trained, identities_of, settings, size=job.architecture.size)
        files = {
            "samples.png": _sample_grid(folder, np.array(originals[1][:N_SAMPLES]), job.conditions),
            "README.md": (folder / cldm_card.CARD_FILE).read_bytes(),
        }
        errors.written(job.output)
        record_training(run, trained.curves, files)
    logger.info(f"saved {folder}")
    errors.end()


def _save_cldm(
    folder: Path,
    trained: TrainedCldm,
    sources: Mapping[str, list[str]],
    settings: Mapping[str, Any],
    *,
    size: int,
) -> None:
    cldm.save_controlnet_pipeline(folder, trained.parts)
    decisive = {key: settings[key] for key in cldm_card.DECISIVE}
    cldm_card.write_card(folder, sources, trained.parts, decisive, size=size)


def _sample_grid(folder: Path, originals: Any, conditions: Mapping[str, Condition]) -> bytes:
    samples = cldm_card.samples(folder, originals, conditions)
    rows = [GridRow(name, maps, images) for name, (maps, images) in samples.items()]
    return image_grid(Grid(originals, rows))


def run_depth_training(job: DepthJob, settings: Mapping[str, Any], tracker: Tracker) -> None:
    """Render heads with their true depth, train the network, save it with its card.

    Args:
        settings: the composed configuration, for the card and the record.
        tracker: records the run.

    Raises:
        CldmrayError: the training failed, or it could not be recorded.
    """
    folder = Path(job.output)
    with DeferredErrors() as errors, tracker.job_run("training", "depth network", settings) as run:
        rendered = render_heads(job.faces)
        logger.info(f"training on {len(rendered.images)} rendered images")
        network, curve = train_depth(rendered, job.training, job.architecture)
        depth_card.save_depth(folder, network, job.architecture, settings)
        errors.written(job.output)
        record_training(run, {"depth": curve}, {"README.md": (folder / "README.md").read_bytes()})
    logger.info(f"saved {folder}")
    errors.end()

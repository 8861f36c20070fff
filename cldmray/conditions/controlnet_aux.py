"""Detectors of the package controlnet-aux (HED, MiDaS, OpenPose, ...) as conditions.

The package is imported on the first call and only there: it is optional, slow to import, and of
several gigabytes with its dependencies.
"""

import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
import types
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import cv2
import numpy as np
from pydantic import AfterValidator, Field

from cldmray.arrays import Images
from cldmray.conditions.base import Condition
from cldmray.errors import ConfigError, MissingDependencyError
from cldmray.hashing import file_hash, fingerprint_rows
from cldmray.results.names import Label
from cldmray.settings import checked_dataclass
from cldmray.storage import hub_commit

PACKAGE = "controlnet_aux"
ANNOTATORS = "lllyasviel/Annotators"
WEIGHTS = {".pth", ".pt", ".onnx", ".safetensors", ".task"}
"""Endings of files of weights."""
PAIR = (
    "the installed torchvision was built for another torch; install the pair that belongs "
    "together: pip install 'torch===2.13.0' torchvision==0.28.0"
)


class Detector(NamedTuple):
    """Where a detector's class and its public weights are; ``repo`` None means no weights."""

    module: str
    cls: str
    repo: str | None = ANNOTATORS
    weights: str | None = None
    subfolder: str | None = None


DETECTORS = {
    "anyline": Detector(
        "anyline", "AnylineDetector", "TheMistoAI/MistoLine", "MTEED.pth", "Anyline"
    ),
    "canny": Detector("canny", "CannyDetector", None),
    "dwpose": Detector("dwpose", "DWposeDetector", None),
    "hed": Detector("hed", "HEDdetector"),
    "leres": Detector("leres", "LeresDetector"),
    "lineart": Detector("lineart", "LineartDetector"),
    "lineart_anime": Detector("lineart_anime", "LineartAnimeDetector"),
    "lineart_standard": Detector("lineart_standard", "LineartStandardDetector", None),
    "mediapipe_face": Detector("mediapipe_face", "MediapipeFaceDetector", None),
    "midas": Detector("midas", "MidasDetector"),
    "mlsd": Detector("mlsd", "MLSDdetector"),
    "normalbae": Detector("normalbae", "NormalBaeDetector"),
    "openpose": Detector("open_pose", "OpenposeDetector"),
    "pidi": Detector("pidi", "PidiNetDetector"),
    "shuffle": Detector("shuffle", "ContentShuffleDetector", None),
    "teed": Detector("teed", "TEEDdetector", "fal-ai/teed", "5_model.pth"),
    "zoe": Detector("zoe", "ZoeDetector"),
}


def _checked_detector(detector: str) -> str:
    if detector not in DETECTORS:
        raise ValueError(f"must be one of {', '.join(DETECTORS)}")
    return detector


@checked_dataclass
class ControlNetAux(Condition):
    """A detector of controlnet-aux, loaded once in each process that calls it.

    The published weights are ``.pth`` files; they are read by torch's weights-only reader, which
    runs no code of theirs.

    Attributes:
        detector: a key of ``DETECTORS``: ``canny``, ``hed``, ``midas``, ``openpose``, ...
        repo: hub id or folder of the weights; None: the detector's usual one.
        weights: file name within ``repo``; None: the detector's usual one.
        device: torch device of the network, ``cpu`` or ``cuda``; detectors without a network
            ignore it.
        resolution: shorter side in pixels at which the detector looks, a multiple of 64. Public
            ControlNets were trained on maps made at 512.
        options: further arguments of the detector's call, for example ``{"coarse": true}``.
        label: name in tables; None: the detector's.
    """

    detector: Annotated[str, AfterValidator(_checked_detector)]
    repo: str | None = None
    weights: str | None = None
    device: str = "cpu"
    resolution: Annotated[int, Field(ge=64, multiple_of=64)] = 512
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    label: Label | None = None

    def __post_init__(self) -> None:
        for key in ("repo", "weights"):
            if getattr(self, key) is not None and DETECTORS[self.detector].repo is None:
                raise ValueError(f"{key}: must be null, {self.detector!r} takes no weights here")

    @property
    def name(self) -> str:
        return self.label or self.detector

    def version(self) -> str:
        """Fingerprint of the weights in a local folder, else the commit that the hub is at.

        Where no file is named it is that of all weights in the folder. Detectors without weights
        have ``""``.
        """
        entry = DETECTORS[self.detector]
        source = self.repo or entry.repo
        if source is None:
            return ""
        folder = Path(source)
        if not folder.is_dir():
            return hub_commit(source, None)
        name = self.weights or entry.weights
        files = [folder / name] if name else [p for p in folder.iterdir() if p.suffix in WEIGHTS]
        return fingerprint_rows(
            f"{path.name} {file_hash(path)}" for path in files if path.is_file()
        )

    def check(self) -> None:
        """Find out whether the detector can be imported; its weights are not looked for.

        Raises:
            MissingDependencyError: controlnet-aux or something it needs is absent or broken.
        """
        _module(DETECTORS[self.detector].module, self.detector)

    def __call__(self, images: Images) -> Images:
        """Maps of a batch, resized back to the images' size.

        Raises:
            MissingDependencyError: controlnet-aux or something it needs is absent or broken.
            ConfigError: the weights cannot be had.
        """
        is_local = self.repo is not None and Path(self.repo).is_dir()
        version = self.version() if is_local else ""
        detect = _load(self.detector, self.repo, self.weights, version, self.device)
        arguments = {"detect_resolution": self.resolution, "output_type": "np", **self.options}
        if "image_resolution" in inspect.signature(type(detect).__call__).parameters:
            arguments.setdefault("image_resolution", self.resolution)
        maps = np.empty_like(images)
        for position, image in enumerate(images):
            with _numpy_random_from(image):
                detected = np.asarray(detect(image.copy(), **arguments))
            maps[position] = _fitted(detected, image.shape[0], image.shape[1])
        return maps


def check_torchvision() -> None:
    """Find out whether torchvision, where it is installed, belongs to the installed torch.

    One that does not breaks diffusers and transformers too, with errors that do not name it.

    Raises:
        MissingDependencyError: it does not; the message names both versions.
    """
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except Exception as error:
        both = [f"{name} {_version(name)}" for name in ("torchvision", "torch")]
        raise MissingDependencyError(
            f"{both[0]} cannot be imported beside {both[1]} ({error}): {PAIR}"
        ) from error


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def _fitted(detected: Any, height: int, width: int) -> Any:
    """A detector's map (h, w) or (h, w, 1 or 3) as uint8 of shape (height, width, 3 or 1)."""
    image = np.clip(detected, 0, 255).astype(np.uint8)
    if image.shape[:2] != (height, width):
        shrinks = image.shape[0] > height
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        image = cv2.resize(image, (width, height), interpolation=interpolation)
    return image if image.ndim == 3 else image[..., None]


@contextmanager
def _numpy_random_from(image: Images) -> Iterator[None]:
    """Seed NumPy's global generator by the image: ``shuffle`` draws its noise from there."""
    state = np.random.get_state()
    np.random.seed(zlib.crc32(image.tobytes()))
    try:
        yield
    finally:
        np.random.set_state(state)


@functools.cache
def _load(detector: str, repo: str | None, weights: str | None, version: str, device: str) -> Any:
    """A detector, loaded once a process for each version of the weights in a local folder."""
    entry = DETECTORS[detector]
    cls = getattr(_module(entry.module, detector), entry.cls)
    with _weights_only():
        if entry.repo is None:
            loaded = cls()
        else:
            source = repo or entry.repo
            places = {"filename": weights or entry.weights}
            if repo is None and entry.subfolder is not None:
                places["subfolder"] = entry.subfolder
            try:
                loaded = cls.from_pretrained(source, **places)
            except OSError as error:
                raise ConfigError(
                    f"repo: no weights of controlnet-aux's {detector!r} in {source!r} ({error}); "
                    "without a hub give the folder that holds the file"
                ) from error
    return loaded.to(device) if hasattr(loaded, "to") else loaded


@contextmanager
def _weights_only() -> Iterator[None]:
    """Make every ``torch.load`` of the block refuse pickled code, whatever its caller asks for."""
    before = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
        else:
            os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = before


def _module(module: str, detector: str) -> types.ModuleType:
    """Import one detector's module, past a package whose ``__init__`` needs more than it does."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        raise MissingDependencyError(
            f"detector {detector!r} needs controlnet-aux: pip install 'cldmray[controlnet]'"
        )
    with suppress(Exception):
        return importlib.import_module(f"{PACKAGE}.{module}")
    bare = types.ModuleType(PACKAGE)
    bare.__path__ = list(spec.submodule_search_locations)
    bare.__spec__ = spec
    sys.modules[PACKAGE] = bare
    try:
        return importlib.import_module(f"{PACKAGE}.{module}")
    except ImportError as error:
        raise MissingDependencyError(
            f"detector {detector!r} of controlnet-aux needs {error.name or error}: "
            "pip install 'cldmray[controlnet]'"
        ) from error
    except Exception as error:
        if "torchvision" in str(error):
            cure = PAIR
        else:
            cure = "install the versions it wants: pip install 'cldmray[controlnet]'"
        raise MissingDependencyError(
            f"detector {detector!r} of controlnet-aux cannot be imported ({error}): {cure}"
        ) from error

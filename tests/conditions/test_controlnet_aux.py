import importlib.metadata
import importlib.util
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from cldmray.arrays import Images
from cldmray.conditions import Coarse, ControlNetAux, controlnet_aux
from cldmray.errors import ConfigError, MissingDependencyError

CANNY = """
import cv2
import numpy as np

class CannyDetector:
    def __call__(self, input_image, low_threshold=100, high_threshold=200,
                 detect_resolution=512, image_resolution=512, output_type="pil", **kwargs):
        input_image[:1] = input_image[:1]
        size = (image_resolution, image_resolution)
        return cv2.resize(cv2.Canny(input_image, low_threshold, high_threshold), size)
"""
HED = """
import os
import numpy as np

LOADED = []

class HEDdetector:
    @classmethod
    def from_pretrained(cls, repo, filename=None):
        if repo == "nowhere":
            raise FileNotFoundError("no hub")
        LOADED.append((repo, filename, os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")))
        return cls()

    def to(self, device):
        self.device = device
        return self

    def __call__(self, image, detect_resolution=512, output_type="pil"):
        assert output_type == "np"
        return np.full((detect_resolution, detect_resolution, 3), 77, np.uint8)
"""
SHUFFLE = """
import numpy as np

class ContentShuffleDetector:
    def __call__(self, image, detect_resolution=512, output_type="pil"):
        return np.random.randint(0, 256, image.shape, dtype=np.uint8)
"""
MIDAS = 'raise RuntimeError("operator torchvision::nms does not exist")'
ZOE = "import timm_that_is_absent"
MEDIAPIPE = 'raise AttributeError("module mediapipe has no attribute solutions")'


@pytest.fixture
def images() -> Images:
    noise = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    both = np.stack([cv2.GaussianBlur(item, (0, 0), 2) for item in noise]).astype(np.uint8)
    both.setflags(write=False)
    return both


@pytest.fixture
def clean_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def forget() -> None:
        controlnet_aux._load.cache_clear()
        for name in [name for name in sys.modules if name.partition(".")[0] == "controlnet_aux"]:
            del sys.modules[name]

    forget()
    yield
    forget()


@pytest.fixture(params=["", "raise ImportError('torchvision')", MIDAS], ids=["whole", "no", "bad"])
def fake(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    clean_modules: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """controlnet_aux whose ``__init__`` works, lacks torchvision, or meets a broken one."""
    sources = {
        "canny": CANNY,
        "hed": HED,
        "shuffle": SHUFFLE,
        "midas": MIDAS,
        "zoe": ZOE,
        "mediapipe_face": MEDIAPIPE,
    }
    for module, source in sources.items():
        folder = tmp_path / "controlnet_aux" / module
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(source)
    (tmp_path / "controlnet_aux" / "__init__.py").write_text(request.param)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("fake")
class TestWithAFakePackage:
    def test_canny_agrees_with_opencv(self, images: Images) -> None:
        condition = ControlNetAux(
            "canny", resolution=64, options={"low_threshold": 30, "high_threshold": 60}
        )
        maps = condition(images)
        assert maps.shape == images.shape
        for result, image in zip(maps, images, strict=True):
            np.testing.assert_array_equal(result[..., 0], cv2.Canny(image, 30, 60))

    def test_weights_load_once_a_process_by_the_weights_only_reader(self, images: Images) -> None:
        condition = ControlNetAux("hed")
        for _ in range(2):
            assert (condition(images) == 77).all()
        ControlNetAux("hed")(images)
        ControlNetAux("hed", repo="mine", weights="a.pth", device="meta")(images)
        assert sys.modules["controlnet_aux.hed"].LOADED == [
            ("lllyasviel/Annotators", None, "1"),
            ("mine", "a.pth", "1"),
        ]
        assert len(pickle.dumps(condition)) < 1000

    def test_replaced_weights_of_a_folder_load_again(self, images: Images, tmp_path: Path) -> None:
        repo = tmp_path / "weights"
        repo.mkdir()
        for content in (b"first", b"first", b"other"):
            (repo / "ControlNetHED.pth").write_bytes(content)
            ControlNetAux("hed", repo=str(repo))(images)
        assert len(sys.modules["controlnet_aux.hed"].LOADED) == 2

    def test_maps_come_back_in_the_size_of_the_images(self) -> None:
        images = np.zeros((2, 50, 70, 3), np.uint8)
        assert ControlNetAux("hed", resolution=64)(images).shape == images.shape
        assert ControlNetAux("canny", resolution=64)(images).shape == images.shape
        assert ControlNetAux("hed")(images[:0]).shape == (0, 50, 70, 3)

    def test_random_detectors_depend_on_the_image_alone(self, images: Images) -> None:
        condition = ControlNetAux("shuffle")
        np.random.seed(5)
        expected = np.random.random()
        np.random.seed(5)
        forward = condition(images)
        assert np.random.random() == expected
        np.testing.assert_array_equal(forward, condition(images[::-1])[::-1])
        assert (forward[0] != forward[1]).any()

    def test_absent_weights_name_the_key(self, images: Images) -> None:
        with pytest.raises(ConfigError, match=r"^repo: .*'nowhere'"):
            ControlNetAux("hed", repo="nowhere")(images)

    def test_a_broken_torchvision_is_explained(self, images: Images) -> None:
        with pytest.raises(MissingDependencyError, match="built for another torch"):
            ControlNetAux("midas")(images)

    def test_an_absent_dependency_is_named(self, images: Images) -> None:
        with pytest.raises(MissingDependencyError, match="needs timm_that_is_absent"):
            ControlNetAux("zoe")(images)

    def test_all_that_is_found_by_the_check_before_any_image(self) -> None:
        ControlNetAux("hed").check()
        assert "controlnet_aux.hed" in sys.modules
        assert not sys.modules["controlnet_aux.hed"].LOADED
        for detector in ("midas", "zoe", "mediapipe_face"):
            with pytest.raises(MissingDependencyError, match=f"detector '{detector}'"):
                Coarse(ControlNetAux(detector)).check()

    def test_another_import_failure_is_passed_on_in_words(self, images: Images) -> None:
        with pytest.raises(MissingDependencyError, match="no attribute solutions"):
            ControlNetAux("mediapipe_face")(images)


def test_without_the_package_the_message_says_what_to_install(
    images: Images, clean_modules: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = importlib.util.find_spec

    def absent(name: str, package: str | None = None) -> object:
        return None if name == "controlnet_aux" else result(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", absent)
    condition = ControlNetAux("hed")
    with pytest.raises(MissingDependencyError, match=r"pip install 'cldmray\[controlnet\]'"):
        condition(images)


class TestTorchvision:
    @pytest.fixture(autouse=True)
    def forgotten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "torchvision", raising=False)

    def put(self, root: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
        (root / "torchvision").mkdir()
        (root / "torchvision" / "__init__.py").write_text(source)
        monkeypatch.syspath_prepend(str(root))

    def test_one_of_another_torch_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.put(tmp_path, MIDAS, monkeypatch)
        versions = {"torchvision": "0.28.0", "torch": "2.13.0+cpu"}
        monkeypatch.setattr(importlib.metadata, "version", versions.__getitem__)
        with pytest.raises(
            MissingDependencyError,
            match=r"^torchvision 0.28.0 cannot be imported beside torch 2.13.0\+cpu \(operator .*"
            r"pip install 'torch===2.13.0' torchvision==0.28.0",
        ):
            controlnet_aux.check_torchvision()

    def test_one_that_fits(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.put(tmp_path, "fits = True", monkeypatch)
        controlnet_aux.check_torchvision()
        assert sys.modules.pop("torchvision").fits

    def test_none_is_needed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
        controlnet_aux.check_torchvision()
        assert "torchvision" not in sys.modules


@pytest.mark.skipif(
    importlib.util.find_spec("controlnet_aux") is None,
    reason="controlnet-aux is not installed: pip install 'cldmray[controlnet]'",
)
class TestWithTheRealPackage:
    def test_canny_agrees_with_opencv(self, images: Images, clean_modules: None) -> None:
        maps = ControlNetAux("canny", resolution=64)(images)
        for result, image in zip(maps, images, strict=True):
            np.testing.assert_array_equal(result[..., 0], cv2.Canny(image, 100, 200))

    @pytest.mark.parametrize("detector", ["shuffle", "lineart_standard"])
    def test_detectors_without_weights_run(
        self, detector: str, images: Images, clean_modules: None
    ) -> None:
        condition = ControlNetAux(detector)
        maps = condition(images)
        assert maps.shape == images.shape
        assert maps.any()
        np.testing.assert_array_equal(maps, condition(images))

    def test_a_network_reads_its_weights_from_a_folder(
        self, images: Images, tmp_path: Path, clean_modules: None
    ) -> None:
        import torch

        condition = ControlNetAux("hed", repo=str(tmp_path), resolution=64)
        with pytest.raises(ConfigError, match=r"^repo: "):
            condition(images)
        torch.manual_seed(0)
        network = sys.modules["controlnet_aux.hed"].ControlNetHED_Apache2()
        torch.save(network.state_dict(), tmp_path / "ControlNetHED.pth")
        maps = condition(images)
        assert maps.shape == images.shape
        np.testing.assert_array_equal(maps[:1], condition(images[:1]))


@pytest.mark.parametrize("weights", ["hed.pth", None])
def test_the_version_follows_the_weights(tmp_path: Path, weights: str | None) -> None:
    (tmp_path / "hed.pth").write_bytes(b"first")
    condition = ControlNetAux("hed", repo=str(tmp_path), weights=weights)
    before = condition.version()
    (tmp_path / "notes.txt").write_bytes(b"any")
    assert condition.version() == before != ""
    (tmp_path / "hed.pth").write_bytes(b"other")
    assert condition.version() != before


def test_the_version_of_weights_on_the_hub_is_their_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controlnet_aux, "hub_commit", lambda name, revision: f"{name} {revision}")
    assert ControlNetAux("hed", repo="owner/annotators").version() == "owner/annotators None"
    assert ControlNetAux("canny").version() == ""

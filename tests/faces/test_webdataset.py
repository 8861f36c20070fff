"""Tar files of images as webdataset writes them."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from cldmray import hashing
from cldmray.errors import BadInputError
from cldmray.faces import WebDatasetFaces
from cldmray.faces.records import listing_notes
from tests.faces.image_files import identities_of, image, shades


class TestWebDataset:
    def write(self, path: Path, samples: list[dict[str, Any]]) -> None:
        import webdataset

        with webdataset.TarWriter(str(path)) as writer:
            for sample in samples:
                writer.write(sample)

    def test_identities_of_samples(self, tmp_path: Path) -> None:
        first = [
            {"__key__": "0", "png": image(0), "json": {"identity": "Ann"}, "txt": "a face"},
            {"__key__": "1", "jpg": image(1, kind="JPEG"), "json": {"label": 7}},
            {"__key__": "Bob/2", "png": image(2), "txt": "a caption"},
        ]
        self.write(tmp_path / "faces-000.tar", first)
        self.write(tmp_path / "faces-001.tar", [{"__key__": "3", "png": image(3), "cls": 5}])
        source = WebDatasetFaces(str(tmp_path))
        assert identities_of(source) == {"Ann": 1, "7": 1, "Bob": 1, "5": 1}
        assert shades(source) == {0, 1, 2, 3}
        rows = {row["identity"]: row["sample_id"] for row in source.listing().to_pylist()}
        assert rows["Bob"] == hashing.sample_id("webdataset", "Bob/2")
        (location,) = WebDatasetFaces(str(tmp_path / "faces-001.tar")).listing()["location"]
        assert location.as_py().startswith("faces-001.tar#")
        assert source.read(["gone.tar#0,5", "faces-001.tar#0,99999999"]) == [None, None]

    def test_names_with_dots(self, tmp_path: Path) -> None:
        self.write(
            tmp_path / "a.tar",
            [
                {"__key__": "Ann Lee/img", "1.png": image(1), "2.PNG": image(2)},
                {"__key__": "b", "1.png": image(3), "2.png": image(4), "json": {"label": "Bob"}},
                {"__key__": "c", "1.png": image(5), "1.json": {"label": "Cy"}, "cls": 7},
                {"__key__": "d", "png": image(6), "mask.png": image(7), "cls": 8},
            ],
        )
        source = WebDatasetFaces(str(tmp_path))
        assert identities_of(source) == {"Ann Lee": 2, "Bob": 2, "Cy": 1, "8": 1}
        assert shades(source) == {1, 2, 3, 4, 5, 6}
        assert listing_notes(source.listing()) == [
            "Further images of samples, such as masks, left out: 1."
        ]
        ids = source.listing()["sample_id"].to_pylist()
        assert hashing.sample_id("webdataset", "Ann Lee/img.1") in ids

    def test_the_sample_that_names_nobody_is_counted(self, tmp_path: Path) -> None:
        samples = [{"__key__": f"Ann/{number}", "png": image(number)} for number in range(3)]
        self.write(tmp_path / "a.tar", [*samples, {"__key__": "3", "png": image(3)}])
        with pytest.raises(BadInputError, match="sample 3 names nobody"):
            WebDatasetFaces(str(tmp_path)).listing()

    def test_what_is_wrong_is_named(self, tmp_path: Path) -> None:
        self.write(tmp_path / "a.tar", [{"__key__": "0", "png": image(0), "json": {"who": "Ann"}}])
        with pytest.raises(BadInputError, match="identity_field"):
            WebDatasetFaces(str(tmp_path)).listing()
        assert identities_of(WebDatasetFaces(str(tmp_path), identity_field="who")) == {"Ann": 1}
        (tmp_path / "b.tar").write_bytes(b"no tar")
        with pytest.raises(BadInputError, match=r"cannot read .*b\.tar"):
            WebDatasetFaces(str(tmp_path), identity_field="who").listing()

    def pack(self, path: Path, members: list[tuple[str, bytes]]) -> None:
        with tarfile.open(path, "w") as tar:
            for name, content in members:
                item = tarfile.TarInfo(name)
                item.size = len(content)
                tar.addfile(item, io.BytesIO(content))

    @pytest.mark.parametrize("repeated", ["0.png", "0.json"])
    def test_two_members_of_one_key(self, tmp_path: Path, repeated: str) -> None:
        ann, bob = (json.dumps({"identity": name}).encode() for name in ("Ann", "Bob"))
        again = image(2) if repeated == "0.png" else bob
        self.pack(tmp_path / "a.tar", [("0.png", image(1)), ("0.json", ann), (repeated, again)])
        with pytest.raises(BadInputError, match="two members of one key"):
            WebDatasetFaces(str(tmp_path)).listing()

    def test_a_clash_names_nobody(self, tmp_path: Path) -> None:
        self.pack(tmp_path / "a.tar", [("Ann/Ann_1.png", image(1)), ("./Ann/Ann_1.png", image(2))])
        with pytest.raises(BadInputError) as caught:
            WebDatasetFaces(str(tmp_path)).listing()
        assert "Ann" not in str(caught.value)
        assert hashing.safe_location("Ann/Ann_1.png") in str(caught.value)

    def test_a_second_image_of_a_key_is_counted(self, tmp_path: Path) -> None:
        self.pack(tmp_path / "a.tar", [("Ann/1.png", image(1)), ("Ann/1.gif", image(2))])
        listing = WebDatasetFaces(str(tmp_path)).listing()
        assert listing.num_rows == 1
        assert listing_notes(listing) == ["Further images of samples, such as masks, left out: 1."]

    def test_all_formats_are_read(self, tmp_path: Path) -> None:
        kinds = {"gif": "GIF", "jp2": "JPEG2000", "jpe": "JPEG", "pgm": "PPM", "TIF": "TIFF"}
        members = [
            (f"Ann/{number}.{ending}", image(8 * number, kind=kind))
            for number, (ending, kind) in enumerate(kinds.items())
        ]
        self.pack(tmp_path / "a.tar", members)
        source = WebDatasetFaces(str(tmp_path))
        assert shades(source) == {0, 8, 16, 24, 32}
        assert listing_notes(source.listing()) == []

    def test_members_that_are_not_read_are_counted(self, tmp_path: Path) -> None:
        unread = ["Ann/2", "Ann/3.raw", "Ann/4.xyz"]
        ignored = ["Ann/1.txt", "Ann/1.npy", "Ann/._1.png", ".DS_Store"]
        members = [(name, b"x") for name in (*unread, *ignored)]
        self.pack(tmp_path / "a.tar", [("Ann/1.png", image(1)), *members])
        assert listing_notes(WebDatasetFaces(str(tmp_path)).listing()) == [
            "Members without the ending of an image or a text, left out: 3."
        ]
        self.pack(tmp_path / "a.tar", members)
        with pytest.raises(BadInputError, match="no image .*left out: 3"):
            WebDatasetFaces(str(tmp_path)).listing()

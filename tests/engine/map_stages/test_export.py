"""Anonymized images as files: named like the originals, and never outside of their folder."""

import pytest

from cldmray.engine.map_stages.export import file_name
from cldmray.hashing import sample_id


@pytest.mark.parametrize(
    ("identity", "name", "location"),
    [
        ("ann", "ann/1", "ann/1.jpg"),
        ("ann", "ann/1.jpg", "ann/1.jpg"),  # kept where two files share a stem
        ("ann", "ann/summer/1", "ann/summer/1.jpg"),
        ("2880", "2880/000001", "img_align_celeba/000001.jpg"),
    ],
)
def test_files_are_named_like_the_originals(identity: str, name: str, location: str) -> None:
    row = {"sample_id": sample_id("mine", name), "identity": identity}
    assert file_name("mine", row, location) == name


@pytest.mark.parametrize("name", ["../x/1", "/x/1", "a/../../1"])
def test_no_file_leaves_its_folder(name: str) -> None:
    row = {"sample_id": sample_id("mine", name), "identity": name.rpartition("/")[0]}
    assert file_name("mine", row, f"{name}.png") == row["sample_id"]

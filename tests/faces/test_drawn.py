"""Drawn people: the same numbers, the same picture; other people, other faces."""

import cv2
import numpy as np
import pytest

from cldmray.faces import DrawnFaces
from cldmray.faces.decode import decode
from cldmray.faces.records import LISTING, decode_picture


def pictures(source, *locations):
    return [decode_picture(content) for content in source.read(locations)]


def test_listing():
    source = DrawnFaces(people=3, photos_per_person=4)
    table = source.listing()
    assert table.schema == LISTING and table.num_rows == 12
    rows = table.to_pylist()
    assert [row["sample_id"] for row in rows] == sorted({row["sample_id"] for row in rows})
    assert {(row["identity"], row["location"]) for row in rows} == {
        (f"person_0000{i}", f"{i}/{j}") for i in range(3) for j in range(4)
    }
    other = DrawnFaces(people=3, photos_per_person=4, seed=1).listing()
    assert other["sample_id"] == table["sample_id"] and other["version"] != table["version"]


def test_pictures_depend_on_seed_identity_and_photo_alone():
    small, large = DrawnFaces(2, 2), DrawnFaces(50, 9)
    assert small.read(["1/1", "0/0"]) == large.read(["0/0", "1/1"])[::-1]
    contents = large.read(["0/0", "0/1", "1/0", "1/1"])
    contents += DrawnFaces(2, 2, seed=1).read(["0/0"])
    assert len(set(contents)) == 5


@pytest.mark.parametrize("size", [32, 64, 100])
def test_size(size):
    source = DrawnFaces(1, 1, size=size)
    (content,) = source.read(["0/0"])
    assert (decode(content, source.crop, source.size) == decode_picture(content)).all()
    assert decode_picture(content).shape == (size, size, 3)


def test_unlisted_locations():
    assert DrawnFaces(2, 2).read(["2/0", "0/2", "x", "-1/0", ""]) == [None] * 5


def test_every_look_can_be_drawn():
    source = DrawnFaces(60, 1)
    for picture in pictures(source, *(f"{i}/0" for i in range(60))):
        assert picture.std() > 15


def test_edges_alone_tell_people_apart():
    people, photos = 20, 6
    source = DrawnFaces(people, photos)
    maps = []
    for picture in pictures(source, *(f"{i}/{j}" for i in range(people) for j in range(photos))):
        edges = cv2.Canny(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), 50, 150)
        soft = cv2.GaussianBlur(edges.astype(np.float32), (0, 0), 3).ravel()
        maps.append((soft - soft.mean()) / soft.std())
    scores = np.asarray(maps) @ np.asarray(maps).T
    np.fill_diagonal(scores, -np.inf)
    named = scores.argmax(axis=1) // photos
    rank_1 = float((named == np.repeat(np.arange(people), photos)).mean())
    assert rank_1 > 4 * (photos - 1) / (people * photos - 1)


@pytest.mark.parametrize("settings", [{"people": 0}, {"photos_per_person": 0}, {"size": 1}])
def test_bad_settings_name_the_field(settings):
    (key,) = settings
    with pytest.raises(ValueError, match=f"^{key}: "):
        DrawnFaces(**{"people": 1, "photos_per_person": 1, **settings})

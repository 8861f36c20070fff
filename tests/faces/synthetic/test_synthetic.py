"""Synthetic people: the same numbers, the same image; other people, other heads."""

from collections import Counter

import cv2
import numpy as np
import pytest

from cldmray.faces import SyntheticFaces
from cldmray.faces.decode import decode
from cldmray.faces.records import LISTING, decode_image
from cldmray.faces.synthetic import AGES, SEXES, SKIN_TONES, attributes_table, groups
from cldmray.faces.synthetic.identity import CELLS, appearance
from cldmray.faces.synthetic.scene import model, relative_depth, render

SEED = 5


def frontal(shot):
    return abs(shot.attributes["yaw"]) < 12 and abs(shot.attributes["pitch"]) < 8


def first(wanted, size=64, identities=range(40)):
    for identity in identities:
        shot = render(SEED, identity, 0, size)
        if wanted(shot):
            return shot
    raise AssertionError("nobody fits")


def test_listing():
    source = SyntheticFaces(n_identities=3, images_per_identity=4)
    table = source.listing()
    assert table.schema == LISTING and table.num_rows == 12
    rows = table.to_pylist()
    assert [row["sample_id"] for row in rows] == sorted({row["sample_id"] for row in rows})
    assert {(row["identity"], row["location"]) for row in rows} == {
        (f"person_0_00000{i}", f"{i}/{j}") for i in range(3) for j in range(4)
    }
    assert all(row["identity"] == f"person_0_{int(row['location'][0]):06d}" for row in rows)
    other = SyntheticFaces(n_identities=3, images_per_identity=4, seed=1).listing()
    assert not set(other["identity"].to_pylist()) & set(table["identity"].to_pylist())
    assert SyntheticFaces(3, 4, size=32).listing()["version"] != table["version"]


def test_images_depend_on_seed_identity_and_image_alone():
    small, large = SyntheticFaces(2, 2), SyntheticFaces(50, 9)
    assert small.read(["1/1", "0/0"]) == large.read(["0/0", "1/1"])[::-1]
    contents = large.read(["0/0", "0/1", "1/0", "1/1"])
    contents += SyntheticFaces(2, 2, seed=1).read(["0/0"])
    assert len(set(contents)) == 5


def test_a_fresh_model_gives_the_same_image():
    before = render(SEED, 3, 1)
    model.cache_clear()
    after = render(SEED, 3, 1)
    for first_image, second_image in zip(before, after, strict=True):
        assert (
            first_image == second_image
            if isinstance(first_image, dict)
            else (first_image == second_image).all()
        )


@pytest.mark.parametrize("size", [32, 64, 100])
def test_size(size):
    source = SyntheticFaces(1, 1, size=size)
    (content,) = source.read(["0/0"])
    assert (decode(content, source.crop, source.size) == decode_image(content)).all()
    assert decode_image(content).shape == (size, size, 3)


@pytest.mark.parametrize("identity", range(6))
def test_another_size_shows_the_same_scene(identity):
    small, large = (render(SEED, identity, 1, size) for size in (64, 128))
    shrunk = cv2.resize(large.image, (64, 64), interpolation=cv2.INTER_AREA)
    assert np.corrcoef(small.image.ravel(), shrunk.ravel())[0, 1] > 0.95
    assert np.abs((large.landmarks + 0.5) / 2 - (small.landmarks + 0.5)).max() < 0.01
    assert small.attributes == large.attributes
    halved = cv2.resize(large.mask.astype(np.float32), (64, 64), interpolation=cv2.INTER_AREA)
    assert ((halved >= 0.5) == small.mask).mean() > 0.97


def test_unlisted_locations():
    assert SyntheticFaces(2, 2).read(["2/0", "0/2", "x", "-1/0", ""]) == [None] * 5


def test_groups_are_balanced_over_each_cycle():
    for cycle in range(3):
        cells = Counter(
            tuple(groups(SEED, cycle * CELLS + place).values()) for place in range(CELLS)
        )
        assert set(cells.values()) == {1}
        assert len(cells) == len(SEXES) * len(AGES) * len(SKIN_TONES)
    orders = [[groups(seed, i)["sex"] for i in range(CELLS)] for seed in range(3)]
    assert orders[0] != orders[1] != orders[2]


def test_groups_show_in_the_person():
    population = [(groups(SEED, i), appearance(SEED, i)) for i in range(CELLS)]
    by_tone = [
        np.mean([looks.skin.mean() for labels, looks in population if labels["skin_tone"] == tone])
        for tone in SKIN_TONES
    ]
    assert by_tone == sorted(by_tone, reverse=True)
    years = {"young": (18, 35), "middle": (35, 55), "old": (55, 81)}
    for labels, looks in population:
        low, high = years[labels["age"]]
        assert low < looks.years < high
        assert not looks.beard or labels["sex"] == "male"


def test_attributes_table():
    table = attributes_table(SyntheticFaces(5, 1, seed=SEED))
    assert table["identity"].to_pylist() == [f"person_{SEED}_{i:06d}" for i in range(5)]
    for i, row in enumerate(table.to_pylist()):
        assert {key: row[key] for key in ("sex", "age", "skin_tone")} == groups(SEED, i)


def test_people_differ_and_images_of_one_share_their_head():
    size = 64
    rest = {i: model(SEED, i, 7.0).rest for i in range(3)}
    assert model(SEED, 1, 7.0).rest is rest[1]
    for first_image, second_image in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(rest[first_image] - rest[second_image]).max() > 0.3
    images = [render(SEED, 1, index, size) for index in range(2)]
    assert images[0].attributes != images[1].attributes
    assert (images[0].image != images[1].image).any()


@pytest.mark.parametrize("identity", range(8))
def test_ranges(identity):
    shot = render(SEED, identity, 2)
    assert shot.image.dtype == np.uint8 and shot.image.shape == (64, 64, 3)
    assert shot.image.std() > 15
    assert shot.mask.dtype == shot.foreground.dtype == bool
    assert not (shot.mask & ~shot.foreground).any()
    assert 0.1 < shot.mask.mean() < shot.foreground.mean() <= 1
    assert shot.depth.dtype == np.float32
    there = np.isfinite(shot.depth)
    assert (there | ~shot.foreground).all()
    assert shot.depth[there].min() > 2.5 and shot.depth[there].max() < 9
    assert shot.landmarks.shape == (68, 2) and shot.landmarks.dtype == np.float32
    assert all(isinstance(value, float) for value in shot.attributes.values())
    light = [shot.attributes[f"light_{axis}"] for axis in "xyz"]
    assert np.isclose(np.linalg.norm(light), 1)


def test_relative_depth():
    shot = first(frontal)
    levels = relative_depth(shot)
    assert levels.dtype == np.uint8 and (levels[~shot.foreground] == 0).all()
    assert levels[shot.foreground].min() == 64 and levels.max() == 255
    there = shot.foreground
    slope = np.polyfit(shot.depth[there], levels[there].astype(float), 1)
    fitted = np.polyval(slope, shot.depth[there])
    assert slope[0] < 0 and np.abs(fitted - levels[there]).max() < 1


def test_the_nose_is_nearer_than_the_sides():
    shot = first(frontal)
    x, y = np.rint(shot.landmarks).astype(int).T
    nose = shot.depth[y[30], x[30]]
    assert nose < shot.depth[y[[36, 45]], x[[36, 45]]].min() - 0.05
    assert nose < shot.depth[y[2] - 1, x[2] + 2]


def test_landmarks_lie_on_the_face():
    inside = []
    for identity in range(12):
        shot = render(SEED, identity, 3, 128)
        if shot.attributes["cap"] or shot.attributes["glasses"] or not frontal(shot):
            continue
        x, y = np.rint(shot.landmarks[27:]).astype(int).T
        inside.append(shot.mask[y, x].mean())
    assert len(inside) >= 3 and np.mean(inside) > 0.97


def test_landmarks_are_in_the_order_of_ibug():
    points = first(frontal).landmarks
    assert (np.diff(points[:17, 0]) > -1).all() and points[0, 0] < points[8, 0] < points[16, 0]
    assert (np.diff(points[17:27, 0]) > 0).all() and (np.diff(points[27:31, 1]) > 0).all()
    left, right, mouth = points[36:42].mean(0), points[42:48].mean(0), points[48:].mean(0)
    assert left[0] < right[0] and mouth[1] > points[33, 1] > left[1] > points[17:22, 1].mean()
    assert points[8, 1] > mouth[1] + 4
    assert points[36, 0] == points[36:42, 0].min() and points[45, 0] == points[42:48, 0].max()


def test_framing():
    eyes, mouths = [], []
    for identity in range(40):
        shot = render(SEED, identity, 0, 32)
        points = 2 * (shot.landmarks + 0.5)
        eyes.append((points[36:42].mean(0), points[42:48].mean(0)))
        mouths.append(points[48:60].mean(0))
    left, right = np.mean(eyes, axis=0)
    assert np.allclose(left, (22, 28), atol=2.5) and np.allclose(right, (42, 28), atol=2.5)
    assert np.allclose(np.mean(mouths, axis=0), (32, 49), atol=2.5)


def test_the_iris_is_dark_between_the_eye_landmarks():
    def wide_awake(shot):
        return frontal(shot) and shot.attributes["eyes_open"] > 0.9 and not shot.attributes["cap"]

    shot = first(wide_awake, 256)
    grey = cv2.cvtColor(shot.image, cv2.COLOR_RGB2GRAY).astype(float)
    for start in (36, 42):
        x, y = np.rint(shot.landmarks[start : start + 6].mean(0)).astype(int)
        cheek = grey[y + 28 : y + 40, x - 6 : x + 6].mean()
        assert grey[y - 4 : y + 5, x - 8 : x + 9].min() < 0.55 * cheek


@pytest.mark.parametrize("settings", [{"n_identities": 0}, {"images_per_identity": 0}, {"size": 1}])
def test_bad_settings_name_the_field(settings):
    (key,) = settings
    with pytest.raises(ValueError, match=f"^{key}: "):
        SyntheticFaces(**{"n_identities": 1, "images_per_identity": 1, **settings})


@pytest.mark.parametrize(
    "arguments, name",
    [((0, -1, 0, 64), "identity"), ((0, 0, -1, 64), "image"), ((0, 0, 0, 4), "size")],
)
def test_bad_arguments_are_named(arguments, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        render(*arguments)


def test_groups_of_nobody():
    with pytest.raises(ValueError, match="^identity: "):
        groups(0, -1)

"""Who is swapped with whom, and what the pictures of two people are made of."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cldmray import hashing
from cldmray.anonymizers.base import Batch
from cldmray.anonymizers.diffusion.settings import Control, Diffusion
from cldmray.conditions import Canny
from cldmray.engine.anonymize import SHOWN, anonymize
from cldmray.engine.artifacts import StageTable, read_manifest
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.swap import SWAPPED, people_in_pairs, swap_conditions, swap_photos
from cldmray.errors import BadInputError
from cldmray.evaluation.ablation import scaled
from cldmray.faces.records import EVALUATION, FACES, decode_pictures

SEED = 4


@pytest.mark.parametrize("count", [2, 3, 4, 5, 20, 21])
class TestPeople:
    def test_nobody_keeps_their_condition(self, count: int) -> None:
        people = [f"p{number}" for number in range(count)]
        found = people_in_pairs(people, SEED)
        assert sorted(found) == sorted(people)
        partners = {person: partner for person, (partner, _) in found.items()}
        assert sorted(partners.values()) == sorted(people), "everybody's is used once"
        assert all(person != partner for person, partner in partners.items())

    def test_pairs_are_closed(self, count: int) -> None:
        found = people_in_pairs([f"p{number}" for number in range(count)], SEED)
        groups: dict[str, set[str]] = {}
        for person, (partner, pair) in found.items():
            groups.setdefault(pair, set()).add(person)
            assert found[partner][1] == pair
        sizes = sorted(len(group) for group in groups.values())
        assert sizes == [2] * (count // 2 - count % 2) + [3] * (count % 2)
        assert all(pair in group for pair, group in groups.items())

    def test_order_and_repeats_do_not_matter_but_the_seed_does(self, count: int) -> None:
        people = [f"p{number}" for number in range(count)]
        found = people_in_pairs(people, SEED)
        assert people_in_pairs(people[::-1] * 3, SEED) == found
        if count > 4:
            assert people_in_pairs(people, SEED + 1) != found


def test_one_person_cannot_be_swapped() -> None:
    with pytest.raises(BadInputError, match="at least two people"):
        people_in_pairs(["ann", "ann"], SEED)


def group(**photos: int) -> pa.Table:
    rows = [
        {
            "sample_id": f"{person}/{number}",
            "identity": person,
            "split": EVALUATION,
            "image": f"{person}/{number}".encode(),
        }
        for person, count in photos.items()
        for number in range(count)
    ]
    return pa.Table.from_pylist(rows, FACES)


class TestPhotos:
    def test_the_others_take_turns(self) -> None:
        partners = {"ann": "bob", "bob": "ann"}
        rows = swap_photos(group(ann=4, bob=2), partners, SEED).to_pylist()
        assert sorted(row["sample_id"] for row in rows) == sorted(
            group(ann=4, bob=2)["sample_id"].to_pylist()
        )
        for row in rows:
            assert row["condition_identity"] == partners[row["identity"]]
            assert row["condition_id"].startswith(row["condition_identity"])
            assert row[SHOWN] == row["condition_id"].encode()
            assert row["image"] == row["sample_id"].encode()
        used = [row["condition_id"] for row in rows if row["identity"] == "ann"]
        assert sorted(used) == ["bob/0", "bob/0", "bob/1", "bob/1"]
        given = {row["condition_id"] for row in rows if row["identity"] == "bob"}
        assert len(given) == 2

    def test_the_order_of_rows_does_not_matter(self) -> None:
        partners = {"ann": "bob", "bob": "cat", "cat": "ann"}
        whole = group(ann=3, bob=3, cat=2)
        turned = whole.take(list(range(len(whole)))[::-1])
        assert swap_photos(whole, partners, SEED).equals(swap_photos(turned, partners, SEED))


def setting(scale: float) -> Diffusion:
    """The embedded model, which follows its condition even at 32 pixels and in two steps."""
    controls = {"canny": Control(Canny(50, 100), "controlnet-canny", scale=scale)}
    return Diffusion(controls=controls, mode="img2img", strength=0.7, steps=3, device="cpu")


def committed(folder: str) -> pa.Table:
    manifest = read_manifest(folder)
    assert manifest is not None
    return StageTable(folder, manifest, "").read()


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
class TestStream:
    def test_start_of_one_and_condition_of_the_other(
        self, faces: StageTable, engine: EngineConfig, tmp_path: Path
    ) -> None:
        anonymizer = setting(1.0)
        swap_conditions(faces, anonymizer, SEED, engine, str(tmp_path))
        table = committed(str(tmp_path))
        assert table.schema.equals(SWAPPED)
        photos = faces.read(split=EVALUATION)
        ids, people, files = (
            photos[name].to_pylist() for name in ("sample_id", "identity", "image")
        )
        assert table["sample_id"].to_pylist() == ids
        owner, images = dict(zip(ids, people, strict=True)), dict(zip(ids, files, strict=True))
        partners = people_in_pairs(people, SEED)
        redraw = anonymizer.open()
        for row in table.to_pylist():
            assert (row["condition_identity"], row["pair"]) == partners[row["identity"]]
            assert owner[row["condition_id"]] == row["condition_identity"]
            assert owner[row["sample_id"]] == row["identity"]
            assert row["anonymizer"] == anonymizer.name and row["draw"] == 0
            seed = hashing.picture_seed(row["sample_id"], 0, SEED)
            assert row["seed"] == seed
            start = decode_pictures([images[row["sample_id"]]])
            drawn = decode_pictures([row["image"]])[0].astype(int)
            for sample, swapped in ((row["condition_id"], True), (row["sample_id"], False)):
                maps = {"canny": Canny(50, 100)(decode_pictures([images[sample]]))}
                picture = redraw(Batch([row["sample_id"]], start, np.array([seed]), maps))[0]
                assert (np.abs(drawn - picture).max() <= 1) == swapped

    def test_without_effect_of_the_condition_nothing_is_swapped(
        self, faces: StageTable, engine: EngineConfig, tmp_path: Path
    ) -> None:
        anonymizer = setting(0.0)
        swap_conditions(faces, anonymizer, SEED, engine, str(tmp_path / "swap"))
        draws = {EVALUATION: 1}
        anonymize(faces, scaled(anonymizer, 0), draws, SEED, engine, str(tmp_path / "none"))
        swapped, plain = (
            decode_pictures(committed(str(tmp_path / name))["image"].to_pylist())
            for name in ("swap", "none")
        )
        assert len(swapped) == len(plain) == 18
        assert np.abs(swapped.astype(int) - plain).max() <= 1

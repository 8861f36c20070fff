"""Who is swapped with whom, and what the images of two people are made of."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cldmray import hashing
from cldmray.anonymizers.base import Batch
from cldmray.anonymizers.diffusion import Control, Diffusion
from cldmray.conditions import Canny
from cldmray.engine.artifacts import Artifact, read_manifest
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.map_stages.anonymize import CONDITION_IMAGE
from cldmray.engine.map_stages.swap import (
    SWAPPED,
    identities_in_pairs,
    swap_conditions,
    swap_images,
)
from cldmray.errors import BadInputError
from cldmray.faces.records import EVALUATION, FACES, decode_images

SEED = 4


@pytest.mark.parametrize("count", [2, 3, 4, 5, 20, 21])
class TestPairs:
    def test_nobody_keeps_their_condition(self, count: int) -> None:
        identities = [f"p{number}" for number in range(count)]
        result = identities_in_pairs(identities, SEED)
        assert sorted(result) == sorted(identities)
        partners = {identity: partner for identity, (partner, _) in result.items()}
        assert sorted(partners.values()) == sorted(identities), "everybody's is used once"
        assert all(identity != partner for identity, partner in partners.items())

    def test_pairs_are_closed(self, count: int) -> None:
        result = identities_in_pairs([f"p{number}" for number in range(count)], SEED)
        groups: dict[str, set[str]] = {}
        for identity, (partner, pair) in result.items():
            groups.setdefault(pair, set()).add(identity)
            assert result[partner][1] == pair
        sizes = sorted(len(group) for group in groups.values())
        assert sizes == [2] * (count // 2 - count % 2) + [3] * (count % 2)
        assert all(pair in group for pair, group in groups.items())

    def test_order_and_repeats_do_not_matter_but_the_seed_does(self, count: int) -> None:
        identities = [f"p{number}" for number in range(count)]
        result = identities_in_pairs(identities, SEED)
        assert identities_in_pairs(identities[::-1] * 3, SEED) == result
        if count > 4:
            assert identities_in_pairs(identities, SEED + 1) != result


def test_one_person_cannot_be_swapped() -> None:
    with pytest.raises(BadInputError, match="at least two people"):
        identities_in_pairs(["ann", "ann"], SEED)


def group(**images: int) -> pa.Table:
    rows = [
        {
            "sample_id": f"{identity}/{number}",
            "identity": identity,
            "split": EVALUATION,
            "image": f"{identity}/{number}".encode(),
        }
        for identity, count in images.items()
        for number in range(count)
    ]
    return pa.Table.from_pylist(rows, FACES)


class TestImages:
    def test_the_others_take_turns(self) -> None:
        partners = {"ann": "bob", "bob": "ann"}
        rows = swap_images(group(ann=4, bob=2), partners, SEED).to_pylist()
        assert sorted(row["sample_id"] for row in rows) == sorted(
            group(ann=4, bob=2)["sample_id"].to_pylist()
        )
        for row in rows:
            assert row["condition_identity"] == partners[row["identity"]]
            assert row["condition_id"].startswith(row["condition_identity"])
            assert row[CONDITION_IMAGE] == row["condition_id"].encode()
            assert row["image"] == row["sample_id"].encode()
        used = [row["condition_id"] for row in rows if row["identity"] == "ann"]
        assert sorted(used) == ["bob/0", "bob/0", "bob/1", "bob/1"]
        given = {row["condition_id"] for row in rows if row["identity"] == "bob"}
        assert len(given) == 2

    def test_the_order_of_rows_does_not_matter(self) -> None:
        partners = {"ann": "bob", "bob": "cat", "cat": "ann"}
        whole = group(ann=3, bob=3, cat=2)
        turned = whole.take(list(range(len(whole)))[::-1])
        assert swap_images(whole, partners, SEED).equals(swap_images(turned, partners, SEED))


def anonymizer(scale: float) -> Diffusion:
    """The embedded model, which follows its condition even at 32 pixels and in two steps."""
    controls = {
        "canny": Control(Canny(50, 100), "controlnet-canny", controlnet_conditioning_scale=scale)
    }
    return Diffusion(
        controls=controls, mode="img2img", strength=0.7, num_inference_steps=3, device="cpu"
    )


def committed(folder: str) -> pa.Table:
    manifest = read_manifest(folder)
    assert manifest is not None
    return Artifact(folder, manifest, "").read()


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
class TestStream:
    def test_start_of_one_and_condition_of_the_other(
        self, faces: Artifact, engine: EngineConfig, tmp_path: Path
    ) -> None:
        anonymizer_name = anonymizer(1.0)
        swap_conditions(faces, anonymizer_name, SEED, engine, str(tmp_path))
        table = committed(str(tmp_path))
        assert table.schema.equals(SWAPPED)
        originals = faces.read(split=EVALUATION)
        ids, identities, files = (
            originals[name].to_pylist() for name in ("sample_id", "identity", "image")
        )
        assert table["sample_id"].to_pylist() == ids
        owner, images = dict(zip(ids, identities, strict=True)), dict(zip(ids, files, strict=True))
        partners = identities_in_pairs(identities, SEED)
        anonymize = anonymizer_name.open()
        for row in table.to_pylist():
            assert (row["condition_identity"], row["pair"]) == partners[row["identity"]]
            assert owner[row["condition_id"]] == row["condition_identity"]
            assert owner[row["sample_id"]] == row["identity"]
            assert row["anonymizer"] == anonymizer_name.name and row["sample"] == 0
            seed = hashing.image_seed(row["sample_id"], 0, SEED)
            assert row["seed"] == seed
            start = decode_images([images[row["sample_id"]]])
            drawn = decode_images([row["image"]])[0].astype(int)
            for sample, swapped in ((row["condition_id"], True), (row["sample_id"], False)):
                maps = {"canny": Canny(50, 100)(decode_images([images[sample]]))}
                image = anonymize(Batch([row["sample_id"]], start, np.array([seed]), maps))[0]
                assert (np.abs(drawn - image).max() <= 1) == swapped

    def test_without_effect_of_the_condition_nothing_is_swapped(
        self, faces: Artifact, engine: EngineConfig, tmp_path: Path
    ) -> None:
        anonymizer_name = anonymizer(0.0)
        swap_conditions(faces, anonymizer_name, SEED, engine, str(tmp_path))
        table = committed(str(tmp_path))
        swapped = decode_images(table["image"].to_pylist())
        ids, originals = table["sample_id"].to_pylist(), faces.read(split=EVALUATION)
        assert ids == originals["sample_id"].to_pylist() and len(ids) == 18
        images, seeds = decode_images(originals["image"].to_pylist()), table["seed"].to_numpy()
        without = anonymizer_name.with_scale(0)
        maps = {name: extract(images) for name, extract in without.conditions.items()}
        plain = without.open()(Batch(ids, images, seeds, maps))
        assert np.abs(swapped.astype(int) - plain).max() <= 1

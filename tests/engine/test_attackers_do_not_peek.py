"""Attackers know only what they can learn: nobody is named where nothing was there to be learnt.

People are told apart by which cells of a grid are marked. The background and whether a mark is
light or dark change with every image, so that an encoder has to learn what counts. All attackers
are trained by the steps that the engine takes, without Ray.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from safetensors.torch import save

from cldmray import storage
from cldmray.anonymizers.base import Batch
from cldmray.anonymizers.baselines import Blur
from cldmray.arrays import Images, Interval
from cldmray.attackers.base import TrainingFreeAttacker
from cldmray.attackers.contrastive import AdaptiveContrastive, CleanTrained, ConditionOnly
from cldmray.attackers.data import AttackData
from cldmray.attackers.distilled import AdaptiveDistilled, ConditionOnlyDistilled, DistilledAttacker
from cldmray.attackers.encoder_attacker import EncoderAttacker, training_pairs
from cldmray.attackers.nn.encoder import SmallEncoder
from cldmray.attackers.nn.encoder_training import EncoderTrainable
from cldmray.attackers.nn.training import (
    TrainingConfig,
    TrainingLoop,
)
from cldmray.conditions.canny import Canny
from cldmray.engine.artifacts import WEIGHTS, Artifact, Manifest
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.map_stages.embed import EmbedActor
from cldmray.evaluation.identification import view_of
from cldmray.faces.records import (
    ANONYMIZED,
    ATTACKER,
    EVALUATION,
    FACES,
    ORIGINAL,
    decode_images,
    embeddings_schema,
    encode_images,
)
from cldmray.gallery.ranking import rank_probes
from cldmray.metrics.identification import success_at_rank
from cldmray.metrics.rates import rate_interval

pytestmark = pytest.mark.slow

IDENTITIES = {ATTACKER: 120, EVALUATION: 50}
IMAGES, SIDE, CELL, MARKED = 3, 32, 8, 6
CHANCE = 1 / IDENTITIES[EVALUATION]
LEVEL = 0.999
"""Of intervals: every case is one chance to be unlucky."""
SHAPE = SmallEncoder(width=8, blocks=(1, 1, 1, 1), dimensions=16, pool=4)
TRAINING = TrainingConfig(
    max_steps=100, batch_size=48, warmup_steps=10, precision="fp32", augment=0.0, learning_rate=4e-3
)
EDGES = Canny(40, 80)
ATTACKERS: dict[str, EncoderAttacker] = {
    attacker.name: attacker
    for attacker in (
        CleanTrained(SHAPE, TRAINING),
        ConditionOnly(SHAPE, TRAINING, condition=EDGES),
        AdaptiveContrastive(SHAPE, TRAINING),
        AdaptiveDistilled(SHAPE, TRAINING),
        ConditionOnlyDistilled(SHAPE, TRAINING, condition=EDGES),
    )
}


class Marks(TrainingFreeAttacker):
    """The teacher: how much is going on in each cell."""

    name = "marks"
    dimensions = 16

    def embed(self, images: Images) -> np.ndarray:
        cells = images.mean(3).reshape(-1, 4, CELL, 4, CELL).std((2, 4)).reshape(-1, 16)
        centred = cells - cells.mean(1, keepdims=True)
        return (centred / np.linalg.norm(centred, axis=1, keepdims=True)).astype(np.float32)


def originals(identities: int, random: np.random.Generator) -> Images:
    """Images (people * IMAGES, SIDE, SIDE, 3), those of one person in a row."""
    marked = np.zeros((identities, 16))
    for cells in marked:
        cells[random.choice(16, MARKED, replace=False)] = 1
    signs = random.choice([-45.0, 45.0], (identities, IMAGES, 16))
    cells = (marked[:, None] * signs).reshape(-1, 4, 1, 4, 1)
    mark = np.zeros((CELL, 1, CELL))
    mark[2:6, :, 2:6] = 1
    marks = (cells * mark[None, None]).reshape(-1, SIDE, SIDE, 1)
    across, down = np.meshgrid(np.linspace(-1, 1, SIDE), np.linspace(-1, 1, SIDE))
    slopes = random.uniform(-40, 40, (2, len(marks), 1, 1, 3))
    ground = slopes[0] * across[..., None] + slopes[1] * down[..., None]
    ground += random.uniform(90, 165, (len(marks), 1, 1, 3))
    images = ground + marks + random.normal(0, 3, (len(marks), SIDE, SIDE, 3))
    return np.clip(images, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def faces(write_table: Any, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    random = np.random.default_rng(0)
    rows = []
    for split, identities in IDENTITIES.items():
        for number, image in enumerate(encode_images(originals(identities, random)).to_pylist()):
            identity = f"{split}-{number // IMAGES:03d}"
            sample = f"{identity}-{number % IMAGES}"
            rows.append({"sample_id": sample, "identity": identity, "split": split, "image": image})
    table = pa.Table.from_pylist(rows, FACES)
    result: Artifact = write_table(str(tmp_path_factory.mktemp("marks")), FACES, [[table]])
    return result


@pytest.fixture(scope="module")
def anonymized(
    faces: Artifact, write_table: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Artifact]:
    """What a blur leaves of the images, and images of noise in their place."""
    table = faces.read()
    originals = decode_images(table["image"].to_pylist())
    seeds = np.arange(len(originals))
    blurred = Blur(1.0).open()(Batch(table["sample_id"].to_pylist(), originals, seeds))
    noise = np.random.default_rng(1).integers(0, 256, originals.shape, np.uint8)
    results = {}
    for name, images in (("blur", blurred), ("noise", noise)):
        columns = {"image": encode_images(images), "seed": pa.array(seeds)}
        columns["anonymizer"] = pa.array([name] * len(table))
        columns["sample"] = pa.array([0] * len(table), pa.int32())
        values = {**{key: table[key] for key in ("sample_id", "identity", "split")}, **columns}
        rows = pa.table([values[key] for key in ANONYMIZED.names], schema=ANONYMIZED)
        folder = str(tmp_path_factory.mktemp(name))
        results[name] = write_table(folder, ANONYMIZED, [[rows]])
    return results


Audit = Callable[..., Interval]


@pytest.fixture(scope="module")
def audit(
    faces: Artifact,
    anonymized: dict[str, Artifact],
    engine: EngineConfig,
    write_table: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Audit:
    """Trains an attacker; its rank-1 rate on evaluation people, Full-Ref, source excluded."""
    images = faces.read()
    table = images.select(["sample_id", "identity"])
    table = table.append_column("view", pa.array([ORIGINAL] * len(table)))
    vectors = Marks().embed(decode_images(images["image"].to_pylist()))
    teacher_embeddings = pa.table(
        [*table.columns, pa.FixedSizeListArray.from_arrays(vectors.ravel(), 16)],
        schema=embeddings_schema(16),
    )
    folder = str(tmp_path_factory.mktemp("teacher_embeddings"))
    teacher = write_table(folder, teacher_embeddings.schema, [[teacher_embeddings]])

    def audit(attacker: EncoderAttacker, view: str, shuffled: bool = False) -> Interval:
        learnt = anonymized[view] if attacker.query == "anonymized" else None
        pairs = training_pairs(
            attacker,
            AttackData(faces, learnt),
            teacher if isinstance(attacker, DistilledAttacker) else None,
        )
        if shuffled:
            circle = np.random.default_rng(2).permutation(IDENTITIES[ATTACKER])
            other = np.empty_like(circle)
            other[circle] = np.roll(circle, 1)
            pairs = replace(pairs, query_identities=other[pairs.query_identities])
        trainable = EncoderTrainable("x", attacker.encoder, attacker.training, pairs)
        losses = list(TrainingLoop(trainable).steps())
        assert np.isfinite(losses).all()
        folder = str(tmp_path_factory.mktemp("encoder"))
        weights = {name: value.contiguous() for name, value in trainable.state().items()}
        storage.write_bytes(storage.join(folder, WEIGHTS), save(weights))
        actor = EmbedActor(attacker, Artifact(folder, Manifest({}), "encoder"), engine)
        probes = anonymized[view].read(split=EVALUATION)
        probes = probes.rename_columns({"anonymizer": "view"})
        if isinstance(attacker, DistilledAttacker):
            gallery = teacher_embeddings.filter(pc.equal(images["split"], EVALUATION))
        else:
            clear = faces.read(split=EVALUATION)
            gallery = actor(clear.append_column("view", pa.array([ORIGINAL] * len(clear))))
        result = rank_probes(
            view_of(actor(probes), view), view_of(gallery, ORIGINAL), "full_ref", "source_excluded"
        )
        assert (len(result.n_higher), result.gallery_size) == (150, 50)
        hits = success_at_rank(result.n_higher, result.n_tied, 1)
        return rate_interval(hits, result.identities, confidence_level=LEVEL)

    return audit


@pytest.mark.parametrize("name", ATTACKERS)
class TestAttackers:
    def test_finds_people_who_can_be_found(self, audit: Audit, name: str) -> None:
        assert audit(ATTACKERS[name], "blur").low > 5 * CHANCE

    def test_with_shuffled_people_it_guesses(self, audit: Audit, name: str) -> None:
        """Each attacker person's queries come with another person's images."""
        result = audit(ATTACKERS[name], "blur", shuffled=True)
        assert result.low <= CHANCE <= result.high < 10 * CHANCE

    def test_without_anything_of_the_person_it_guesses(self, audit: Audit, name: str) -> None:
        result = audit(ATTACKERS[name], "noise")
        assert result.low <= CHANCE <= result.high < 10 * CHANCE

    def test_unlearnt_it_guesses(self, audit: Audit, name: str) -> None:
        """Where an untrained encoder found people, one taught wrongly might find them too."""
        still = replace(TRAINING, max_steps=1, learning_rate=1e-12)
        result = audit(replace(ATTACKERS[name], training=still), "blur")
        assert result.low <= CHANCE <= result.high < 10 * CHANCE

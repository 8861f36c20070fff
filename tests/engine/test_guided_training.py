"""A student learns what its teacher sees; the teacher here looks at nothing but colours."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cldmray.arrays import Images
from cldmray.attackers.base import TrainingFreeAttacker
from cldmray.attackers.data import AttackData
from cldmray.attackers.distilled import AdaptiveDistilled
from cldmray.attackers.encoder_attacker import training_pairs, validation_pairs
from cldmray.attackers.nn.encoder import SmallEncoder
from cldmray.attackers.nn.training import TrainingConfig
from cldmray.engine.artifacts import WEIGHTS, Artifact, read_manifest
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.map_stages.embed import embed_views
from cldmray.engine.training import commit_training, learning_curve
from cldmray.evaluation.identification import view_of
from cldmray.faces.records import (
    ANONYMIZED,
    ATTACKER,
    ATTACKER_VALIDATION,
    EVALUATION,
    FACES,
    ORIGINAL,
    embeddings_schema,
    encode_image,
)
from cldmray.gallery.ranking import rank_probes
from cldmray.metrics.identification import success_at_rank
from tests.engine.training_helpers import fit_encoder, fit_in_process, load_encoder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

IDENTITIES = {ATTACKER: 60, ATTACKER_VALIDATION: 10, EVALUATION: 25}
SHAPE = SmallEncoder(width=8, blocks=(1, 1, 1, 1), dimensions=8, pool=2)
TRAINING = TrainingConfig(
    max_steps=60, batch_size=32, warmup_steps=5, validate_every=30, precision="fp32", augment=0.0,
    learning_rate=4e-3,
)  # fmt: skip
LEARNER = AdaptiveDistilled(SHAPE, TRAINING)


class Colours(TrainingFreeAttacker):
    """The teacher: mean colour of the upper and of the lower half, turned at random."""

    name = "colours"
    dimensions = 8

    def embed(self, images: Images) -> np.ndarray:
        halves = [images[:, part].mean((1, 2)) for part in (slice(0, 8), slice(8, 16))]
        turned = (np.concatenate(halves, 1) / 127.5 - 1) @ np.random.default_rng(5).normal(
            size=(6, 8)
        )
        return (turned / np.linalg.norm(turned, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def colourful(
    write_table: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Artifact, Artifact]:
    """People are two colours, three images each; the anonymizer swaps the halves and adds noise."""
    random = np.random.default_rng(0)
    originals, images = [], []
    for split, count in IDENTITIES.items():
        for identity in range(count):
            colours = random.integers(0, 256, (2, 1, 1, 3))
            for number in range(3):
                halves = np.broadcast_to(colours.repeat(8, 1), (2, 8, 16, 3)).reshape(16, 16, 3)
                noisy = [halves + random.normal(0, 6, halves.shape) for _ in range(2)]
                original, other = (np.clip(single, 0, 255).astype(np.uint8) for single in noisy)
                row = {"sample_id": f"{split}-{identity:02d}-{number}", "split": split}
                row["identity"] = row["sample_id"][:-2]
                originals.append({**row, "image": encode_image(original)})
                swapped = {**row, "image": encode_image(np.ascontiguousarray(other[::-1]))}
                images.append({**swapped, "anonymizer": "swap", "sample": 0, "seed": 0})
    root = tmp_path_factory.mktemp("colourful")
    tables = [
        write_table(str(root / name), schema, [[pa.Table.from_pylist(rows, schema)]])
        for name, schema, rows in (("faces", FACES, originals), ("swap", ANONYMIZED, images))
    ]
    return tables[0], tables[1]


Fit = Callable[..., Artifact]


@pytest.fixture(scope="module")
def embed(
    local_ray: None,
    colourful: tuple[Artifact, Artifact],
    engine: EngineConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> Fit:
    """Embeddings of images by the teacher, or of the anonymized images by a student."""
    faces, swapped = colourful

    def embed(splits: tuple[str, ...], student: Artifact | None = None) -> Artifact:
        folder = str(tmp_path_factory.mktemp("embeddings"))
        if student is None:
            embed_views(Colours(), None, faces, [], engine, folder, splits)
        else:
            embed_views(LEARNER, student, None, [swapped], engine, folder, splits)
        return committed(folder)

    return embed


@pytest.fixture(scope="module")
def teacher_embeddings(embed: Fit) -> Artifact:
    return embed((ATTACKER, ATTACKER_VALIDATION))


@pytest.fixture(scope="module")
def fit(
    colourful: tuple[Artifact, Artifact],
    engine: EngineConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> Fit:
    """Trains a student on so many workers, or without Ray."""
    faces, swapped = colourful

    def fit(teacher_embeddings: Artifact, workers: int = 0, **training: Any) -> Artifact:
        folder = str(tmp_path_factory.mktemp("student"))
        attacker = replace(LEARNER, training=replace(TRAINING, **training))
        data = AttackData(faces, swapped)
        pairs = training_pairs(attacker, data, teacher_embeddings)
        validation = validation_pairs(attacker, data, teacher_embeddings)
        if workers:
            many = replace(engine, train_workers=workers)
            fit_encoder(attacker, pairs, validation, many, folder)
        else:
            commit_training(folder, WEIGHTS, fit_in_process(attacker, pairs, validation))
        return committed(folder)

    return fit


def committed(folder: str) -> Artifact:
    manifest = read_manifest(folder)
    assert manifest is not None
    return Artifact(folder, manifest, Path(folder).name)


def named(embed: Fit, student: Artifact) -> float:
    """Rank-1 rate on evaluation people: probes by the student, gallery by the teacher."""
    gallery, probes = embed((EVALUATION,)).read(), embed((EVALUATION,), student).read()
    assert gallery.schema == probes.schema == embeddings_schema(8)
    table = pa.concat_tables([gallery, probes])
    ranks = rank_probes(
        view_of(table, "swap"), view_of(table, ORIGINAL), "full_ref", "source_excluded"
    )
    assert (len(ranks.n_higher), ranks.gallery_size) == (75, 25)
    return float(success_at_rank(ranks.n_higher, ranks.n_tied, 1).mean())


def test_a_student_finds_people_in_the_gallery_of_its_teacher(
    embed: Fit, fit: Fit, teacher_embeddings: Artifact
) -> None:
    student = fit(teacher_embeddings)
    assert [point["step"] for point in learning_curve(student)] == [30, 60]
    assert learning_curve(student)[-1]["validation_rank_1"] > 0.5
    assert named(embed, student) > 0.4


@pytest.mark.nightly
def test_two_workers_learn_what_one_process_learns(fit: Fit, teacher_embeddings: Artifact) -> None:
    settings = {"max_steps": 4, "validate_every": 2, "augment": 1.0}
    stages = [fit(teacher_embeddings, workers, **settings) for workers in (0, 2)]
    single, two = (load_encoder(stage, SHAPE).state_dict() for stage in stages)
    for name, weights in single.items():
        np.testing.assert_allclose(two[name], weights, rtol=0, atol=1e-4, err_msg=name)
    for points in zip(*(learning_curve(stage) for stage in stages), strict=True):
        assert points[1] == pytest.approx(points[0], abs=1e-4)

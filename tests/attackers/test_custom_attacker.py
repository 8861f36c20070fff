"""An attacker with a training of its own, as somebody outside of the repository would write it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cldmray.arrays import Images
from cldmray.attackers.base import Learnt
from cldmray.attackers.data import AttackData, AttackerImages
from cldmray.attackers.learning import LearningAttacker
from cldmray.errors import BadInputError
from cldmray.pipelines.audit import Audit
from tests.small_audit import N_EVALUATED, SMALL, configured


@dataclass(frozen=True)
class LinearAttacker(LearningAttacker):
    """Linear discriminant analysis on small grey images, original and anonymized ones together."""

    components: int = 16
    side: int = 16

    @property
    def learns_from_anonymized(self) -> bool:
        return True

    @property
    def dimensions(self) -> int:
        return self.components

    def learn(self, data: AttackData) -> Learnt:
        images = data.images("attacker")
        vectors = self.vectors(np.concatenate([images.originals, images.anonymized]))
        identities = np.concatenate([images.identities, images.anonymized_identities])
        mean = vectors.mean(0)
        centres = np.stack([vectors[identities == i].mean(0) for i in np.unique(identities)])
        within = np.cov((vectors - centres[identities]).T) + 0.01 * np.eye(vectors.shape[1])
        between = np.cov(centres.T)
        values, axes = np.linalg.eig(np.linalg.solve(within, between))
        order = np.argsort(-values.real)[: self.components]
        return {"mean": mean, "axes": axes.real[:, order]}

    def embed(self, images: Images, learnt: Learnt) -> np.ndarray:
        projected = (self.vectors(images) - learnt["mean"]) @ learnt["axes"]
        return np.float32(projected / np.linalg.norm(projected, axis=1, keepdims=True))

    def vectors(self, images: Images) -> np.ndarray:
        step = images.shape[1] // self.side
        small = images.mean(3)[:, : step * self.side, : step * self.side]
        parts = small.reshape(len(images), self.side, step, self.side, step)
        return parts.mean((2, 4)).reshape(len(images), -1) / 255


class FakeData(AttackData):
    """Random images of so many identities, two of each, and one anonymized image of each."""

    def images(self, *splits: str) -> AttackerImages:
        identities = np.repeat(np.arange(6), 2)
        colours = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3))[identities]
        noise = np.random.default_rng(1).integers(-20, 20, colours.shape)
        originals = np.clip(colours + noise, 0, 255).astype(np.uint8)
        source = np.arange(0, 12, 2)
        ids = [f"s{row}" for row in range(12)]
        return AttackerImages(ids, originals, identities, originals[source] // 2, source)


def test_its_name_and_seed_come_for_free() -> None:
    attacker = LinearAttacker()
    assert (attacker.name, attacker.training_splits) == ("linear_attacker", ("attacker",))
    assert attacker.with_seed(2) == LinearAttacker(seed=2)
    assert LinearAttacker(label="mine").without_labels() == attacker


def test_it_is_validated_on_other_identities() -> None:
    data: Any = FakeData(None)  # type: ignore[arg-type]
    attacker = LinearAttacker(components=4)
    point = attacker.validation_point(data, attacker.learn(data))
    assert point["validation_rank_1"] > 0.5
    embed = attacker.embedder(attacker.learn(data))
    assert embed(data.images().originals).shape == (12, 4)
    with pytest.raises(ValueError, match="linear_attacker embeds by what it has learnt"):
        attacker.embedder(None)
    wrong = LinearAttacker(components=5)
    with pytest.raises(BadInputError, match=r"embed\(\) must return an array of shape \(12, 5\)"):
        wrong.validation_point(data, attacker.learn(data))


@pytest.mark.slow
@pytest.mark.usefixtures("cache_dir")
def test_it_runs_in_an_audit(tmp_path: Path) -> None:
    kind = f"{LinearAttacker.__module__}.{LinearAttacker.__qualname__}"
    config = configured(
        tmp_path,
        *SMALL,
        "anonymizers=[no_op,blur]",
        "attackers=[condition_match,score_fusion]",
        f"+attackers.linear={{_target_:{kind},components:12}}",
        "attackers.score_fusion.min_identities=2",
        "audit.n_training_seeds=2",
        "audit.n_inference_images=0",
        "audit.utility=[]",
        "audit.attribution=false",
        "audit.protocols=[full_ref]",
        "audit.galleries=[source_included]",
        "engine.actors=1",
    )
    audit = Audit(config, {})
    outcome = audit.run({"cldmray": "test"})
    pair = "blur", "linear_attacker"
    (attack,) = [a for a in outcome.results.attacks if (a.anonymizer, a.attacker) == pair]
    assert (len(attack.scores), attack.ranks.gallery_size) == (2, N_EVALUATED)
    assert attack.rank_1.mean() > 2 / N_EVALUATED, "it learns to see through the blur"
    assert ("no_op", "linear_attacker") not in outcome.results.fitted
    assert [len(curve) for curve in outcome.results.curves[pair]] == [1, 1]
    assert 0 < outcome.results.clean[pair] <= 1
    (row,) = [r for r in outcome.report.diagnostics if (r.anonymizer, r.attacker) == pair]
    assert (row.n_trainings, row.n_steps) == (2, 1)
    owners = {key.rsplit("/", 1)[1] for key in outcome.results.weights["blur", "score_fusion"]}
    assert owners == {"condition_match", "linear_attacker"}
    names = [time.name for time in audit.stages.times]
    assert names.count("train-linear_attacker") == 2

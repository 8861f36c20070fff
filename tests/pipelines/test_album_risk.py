"""The strongest attack on all images of a person stands beside that on single images."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from cldmray.evaluation.identification import AttackResult, strongest
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.gallery.protocols import EmbeddingSet, Gallery
from cldmray.gallery.scores import EmbeddingScores
from cldmray.pipelines.audit import Audit

SETTINGS = EvaluationSettings(n_bootstrap=100)


def attack(attacker: str, noise: float, gallery: Gallery) -> AttackResult:
    """Six images each of 20 people."""
    random = np.random.default_rng(0)
    identities = np.repeat([f"p{number:02d}" for number in range(20)], 6)
    samples = np.array([f"s{number:03d}" for number in range(120)])
    centres = np.repeat(random.normal(size=(20, 32)), 6, axis=0)

    def view(spread: float) -> EmbeddingSet:
        vectors = centres + spread * random.normal(size=centres.shape)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return EmbeddingSet(samples, identities, unit.astype(np.float32))

    scores = EmbeddingScores(view(noise), view(0.2), "full_ref", gallery)
    return AttackResult.of("blur", attacker, "full_ref", gallery, scores)


def test_the_strongest_attack_on_albums_excludes_the_source() -> None:
    attacks = [
        attack("weak", 30.0, "source_excluded"),
        attack("strong", 4.0, "source_excluded"),
        attack("unfair", 0.1, "source_included"),
        attack("linking", 0.1, "anonymized_only"),
    ]
    audit = cast(Any, SimpleNamespace(config=SimpleNamespace(audit=SETTINGS)))
    risk = strongest(attacks[:3], SETTINGS, "")
    rate = Audit._with_albums(audit, risk, attacks).person_level
    assert rate is not None
    assert (rate.attacker, rate.gallery) == ("strong", "source_excluded")
    assert rate.value > 2 * float(attacks[1].rank_1.mean())
    assert attacks[3].albums is None
    bare = AttackResult("blur", "x", "full_ref", "source_excluded", attacks[0].ranks)
    assert Audit._with_albums(audit, risk, [bare]) is risk

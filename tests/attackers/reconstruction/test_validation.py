"""The attacker's own view of how well it does."""

import math

import numpy as np
import pytest

from cldmray.attackers.reconstruction.base import Reconstructor
from cldmray.attackers.reconstruction.pairs import ReconstructionPairs
from cldmray.attackers.reconstruction.validation import embed_guesses, validation_point
from cldmray.errors import BadInputError


class Shows(Reconstructor):
    """Its guesses are given images."""

    def __init__(self, *guesses: np.ndarray) -> None:
        self.guessed = np.stack(guesses, axis=1)

    def _reconstruct(self, images, seeds):
        return self.guessed[seeds]

    def state(self):
        return {}

    def load_state(self, state):
        return None


class TestEmbedGuesses:
    def test_is_the_mean_of_unit_embeddings_at_unit_norm(self, pairs, quadrants):
        guesses = np.stack([pairs.originals, pairs.anonymized, pairs.originals[::-1]], axis=1)
        parts = [quadrants.embed(guesses[:, draw]) for draw in range(3)]
        by_hand = sum(parts) / np.linalg.norm(sum(parts), axis=1, keepdims=True)
        result = embed_guesses(quadrants, guesses)
        np.testing.assert_allclose(result, by_hand, atol=1e-6)
        assert result.dtype == np.float32

    def test_one_guess_is_itself(self, pairs, quadrants):
        result = embed_guesses(quadrants, pairs.originals[:, None])
        np.testing.assert_allclose(result, quadrants.embed(pairs.originals), atol=1e-6)

    @pytest.mark.parametrize("shape", [(2, 16, 16, 3), (2, 0, 16, 16, 3)])
    def test_other_shapes_are_refused(self, quadrants, shape):
        with pytest.raises(BadInputError, match="guesses must have shape"):
            embed_guesses(quadrants, np.zeros(shape, np.uint8))


class TestPoint:
    def test_of_a_perfect_reconstruction(self, pairs, quadrants):
        result = validation_point(Shows(pairs.originals), pairs, quadrants)
        assert result["difference"] == 0
        assert result["cosine"] == pytest.approx(1)
        assert result["rank_1"] >= 0.8

    def test_of_one_that_shows_the_next_person(self, pairs, quadrants):
        rolled = np.roll(pairs.originals, 2, axis=0)
        result = validation_point(Shows(rolled), pairs, quadrants)
        assert result["rank_1"] <= 0.1
        difference = np.abs(rolled.astype(float) - pairs.originals).mean() / 255
        assert result["difference"] == pytest.approx(difference)

    def test_the_source_itself_does_not_count(self, pairs, quadrants):
        """Of two people with two images each, one pair is alike and the other is not."""
        a, b, c = pairs.originals[0], pairs.originals[4], pairs.originals[8]
        originals, identities = np.stack([a, a, b, c]), np.array([0, 0, 1, 1])
        four = ReconstructionPairs(originals, identities, np.arange(4), originals, identities)
        vectors = quadrants.embed(originals)
        expected = [1.0, 1.0]
        for mine, other in ((2, 3), (3, 2)):
            expected.append(float(vectors[mine] @ vectors[other] > vectors[mine] @ vectors[0]))
        result = validation_point(Shows(originals), four, quadrants)
        assert result["rank_1"] == pytest.approx(np.mean(expected))

    def test_people_with_one_image_are_not_counted(self, pairs, quadrants):
        single = ReconstructionPairs(
            pairs.originals[:4], np.arange(4), np.arange(4), pairs.originals[:4], np.arange(4)
        )
        assert math.isnan(validation_point(Shows(pairs.originals), single, quadrants)["rank_1"])

    def test_the_margin_is_the_cosine_less_that_to_other_people(self, pairs, quadrants):
        rolled = np.roll(pairs.originals, 1, axis=0)
        vectors, originals = quadrants.embed(rolled), quadrants.embed(pairs.originals)
        by_hand = [
            vectors[row] @ originals[row]
            - np.mean(
                [
                    vectors[row] @ originals[other]
                    for other in range(len(originals))
                    if pairs.original_identities[other] != pairs.identities[row]
                ]
            )
            for row in range(len(originals))
        ]
        result = validation_point(Shows(rolled), pairs, quadrants)
        assert result["margin"] == pytest.approx(np.mean(by_hand), abs=1e-5)

    def test_one_face_for_everybody_has_no_margin(self, pairs, quadrants):
        same = np.repeat(pairs.originals[:1], len(pairs.originals), axis=0)
        result = validation_point(Shows(same), pairs, quadrants)
        assert result["cosine"] > 0.1
        assert result["margin"] == pytest.approx(0, abs=1e-5)

    def test_without_other_people_there_is_no_margin(self, pairs, quadrants):
        alone = ReconstructionPairs(
            pairs.originals[:2],
            np.zeros(2, int),
            np.arange(2),
            pairs.originals[:2],
            np.zeros(2, int),
        )
        assert math.isnan(validation_point(Shows(pairs.originals), alone, quadrants)["margin"])

"""Who is paired with whom, and what counts as a query."""

import numpy as np
import pytest

from cldmray.attackers.reconstruction.pairs import ReconstructionPairs, within_budget
from cldmray.errors import BadInputError
from cldmray.hashing import unit_hash


def labelled(
    identities: list[int], original_identities: list[int], source: list[int]
) -> ReconstructionPairs:
    """Images whose only colour is their row."""
    anonymized, originals = (
        np.zeros((count, 2, 2, 3), np.uint8) + np.arange(count, dtype=np.uint8)[:, None, None, None]
        for count in (len(identities), len(original_identities))
    )
    return ReconstructionPairs(
        anonymized, np.array(identities), np.array(source), originals, np.array(original_identities)
    )


class TestBudget:
    samples = tuple(f"sample{number}" for number in range(20))

    def test_the_smallest_hashes_are_sent(self):
        by_hash = sorted(range(20), key=lambda row: unit_hash("query", self.samples[row]))
        assert within_budget(self.samples, 7).tolist() == sorted(by_hash[:7])

    def test_a_smaller_budget_is_part_of_a_larger_one_in_any_order(self):
        small, large = (
            {self.samples[row] for row in within_budget(self.samples, budget)} for budget in (5, 9)
        )
        turned = self.samples[::-1]
        assert small < large
        assert {turned[row] for row in within_budget(turned, 5)} == small

    def test_every_draw_costs_a_query(self):
        rows = within_budget([sample for sample in self.samples for _ in range(3)], 4)
        assert len(rows) == 4
        assert len({row // 3 for row in rows.tolist()}) == 2

    def test_more_than_there_are_or_no_limit_is_all(self):
        assert within_budget(self.samples, 99).tolist() == list(range(20))
        assert within_budget(self.samples, None).tolist() == list(range(20))

    def test_none_at_all_is_refused(self):
        with pytest.raises(BadInputError, match="budget: must be at least 1, got 0"):
            within_budget(self.samples, 0)


class TestPairs:
    def test_every_anonymized_image_is_a_query(self):
        pairs = labelled([0, 0, 1], [0, 1, 1], [0, 0, 2])
        assert pairs.queries == 3
        fewer = pairs.rows(np.array([2]))
        assert fewer.queries == 1
        assert (fewer.identities.tolist(), fewer.source.tolist()) == ([1], [2])
        assert fewer.anonymized[0, 0, 0, 0] == 2
        assert len(fewer.originals) == 3

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"originals": np.zeros((0, 2, 2, 3), np.uint8)}, "no images"),
            ({"originals": np.zeros((3, 4, 4, 3), np.uint8)}, "differ in size"),
            ({"identities": np.zeros(2, np.int64)}, "one row an image"),
            ({"original_identities": np.zeros(1, np.int64)}, "one row an image"),
            ({"source": np.array([0, 1, 3])}, "source: names a row"),
            ({"source": np.array([0, -1, 1])}, "source: names a row"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, change, message):
        fields = vars(labelled([0, 0, 1], [0, 1, 1], [0, 0, 2])) | change
        with pytest.raises(BadInputError, match=message):
            ReconstructionPairs(**fields)


class TestShuffled:
    identities = tuple(np.repeat(np.arange(9), [1, 2, 3, 1, 2, 3, 1, 2, 3]))

    def whole(self) -> ReconstructionPairs:
        return labelled(self.identities, self.identities, range(18))

    @pytest.mark.parametrize("seed", range(5))
    def test_nobody_keeps_own_images(self, seed):
        pairs = self.whole().shuffled(seed)
        partners = pairs.original_identities[pairs.source]
        assert not (partners == pairs.identities).any()
        assert pairs.anonymized.tolist() == self.whole().anonymized.tolist()
        assert pairs.identities.tolist() == self.whole().identities.tolist()

    def test_each_person_gets_one_other_and_each_is_had_once(self):
        pairs = self.whole().shuffled(3)
        partners = {
            identity: set(
                pairs.original_identities[pairs.source[pairs.identities == identity]].tolist()
            )
            for identity in range(9)
        }
        assert all(len(result) == 1 for result in partners.values())
        assert sorted(other for result in partners.values() for other in result) == list(range(9))

    def test_it_depends_on_the_seed_alone(self):
        first, again, other = (self.whole().shuffled(seed).source.tolist() for seed in (0, 0, 1))
        assert first == again
        assert first != other

    def test_images_that_were_not_sent_stay_unseen(self):
        pairs = labelled([0, 1, 2], [0, 0, 1, 1, 2, 2], [0, 2, 4]).shuffled(0)
        assert set(pairs.source.tolist()) == {0, 2, 4}

    def test_one_person_cannot_be_shuffled(self):
        with pytest.raises(BadInputError, match="fewer than two identities"):
            labelled([0, 0], [0, 0], [0, 1]).shuffled(0)

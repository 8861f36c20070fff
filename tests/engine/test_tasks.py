"""Tasks give what ``map`` gives, in its order, and raise what it raises."""

from itertools import product
from typing import get_args

import numpy as np
import pytest

from cldmray.engine.tasks import SharedArrays, load_shared, map_in_tasks
from cldmray.errors import BadInputError
from cldmray.gallery.protocols import EmbeddingSet, Gallery, Protocol
from cldmray.gallery.scores import EmbeddingScores


class TestSharedArrays:
    def test_the_embeddings_of_nine_attacks_travel_once(self) -> None:
        random = np.random.default_rng(0)
        vectors = random.normal(size=(2000, 128)).astype(np.float32)
        ids = np.array([f"{number:016x}" for number in range(2000)])
        identities = np.array([f"person {number // 8}" for number in range(2000)])
        views = EmbeddingSet(ids, identities, vectors)
        attacks = [
            EmbeddingScores(views, views, protocol, gallery)
            for protocol, gallery in product(get_args(Protocol), get_args(Gallery))
        ]
        put: list[np.ndarray] = []

        def keep(array: np.ndarray) -> int:
            put.append(array)
            return len(put) - 1

        arrays = SharedArrays(keep)
        dumps = [arrays.dump(attack) for attack in attacks]
        assert sum(array is vectors for array in put) == 1
        for attack, (content, places) in zip(attacks, dumps, strict=True):
            again = load_shared(content, [put[place] for place in places])
            for block, other in zip(attack.blocks(), again.blocks(), strict=True):
                np.testing.assert_array_equal(block.scores, other.scores)

    def test_small_arrays_and_objects_travel_with_their_value(self) -> None:
        arrays = SharedArrays(lambda array: pytest.fail("was put aside"))
        value = {"small": np.arange(3), "text": "x", "objects": np.array([[1]] * 20_000, object)}
        content, places = arrays.dump(value)
        assert places == []
        again = load_shared(content, [])
        assert again["small"].tolist() == [0, 1, 2] and len(again["objects"]) == 20_000


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
class TestMap:
    def test_results_come_in_the_order_of_the_values(self) -> None:
        assert list(map_in_tasks(lambda value: value**2, range(5))) == [0, 1, 4, 9, 16]

    def test_arrays_that_values_share(self) -> None:
        large = np.arange(100_000)
        totals = map_in_tasks(
            lambda value: value[0] + int(value[1].sum()), [(1, large), (2, large)]
        )
        assert list(totals) == [4_999_950_001, 4_999_950_002]

    def test_nothing(self) -> None:
        assert list(map_in_tasks(lambda value: value, [])) == []

    def test_an_error_of_ours_comes_out_as_itself(self) -> None:
        def refuse(value: int) -> int:
            raise BadInputError(f"value {value}")

        with pytest.raises(BadInputError, match=r"^value 1$"):
            list(map_in_tasks(refuse, [1, 2]))

"""Tasks give what ``map`` gives, in its order, and raise what it raises."""

import pytest

from cldmray.engine.tasks import map_in_tasks
from cldmray.errors import BadInputError


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
class TestMap:
    def test_results_come_in_the_order_of_the_values(self) -> None:
        assert list(map_in_tasks(lambda value: value**2, range(5))) == [0, 1, 4, 9, 16]

    def test_nothing(self) -> None:
        assert list(map_in_tasks(lambda value: value, [])) == []

    def test_an_error_of_ours_comes_out_as_itself(self) -> None:
        def refuse(value: int) -> int:
            raise BadInputError(f"value {value}")

        with pytest.raises(BadInputError, match=r"^value 1$"):
            list(map_in_tasks(refuse, [1, 2]))

"""What a process has opened once serves later blocks, whoever brings them."""

import pickle
from typing import Any

import pyarrow as pa
import pytest

from cldmray.engine import opened
from cldmray.engine.opened import Opened
from cldmray.errors import BadInputError

opens: list[str] = []


class Counting(Opened):
    """Adds a column; counts how often it was opened."""

    def open(self, name: str) -> None:
        if name == "broken":
            raise BadInputError("broken: cannot be opened")
        opens.append(name)
        self.column = name

    def __call__(self, block: pa.Table) -> pa.Table:
        self.ensure_opened()
        return block.append_column(self.column, pa.array([1] * len(block)))


@pytest.fixture(autouse=True)
def nothing_opened() -> None:
    opens.clear()
    opened._OPENED.clear()


BLOCK = pa.table({"x": [1, 2]})


def sent(function: Any) -> Any:
    """The function as a task receives it."""
    return pickle.loads(pickle.dumps(function))


def test_it_is_opened_once_for_all_blocks_of_a_stage() -> None:
    function = Counting("a")
    for _ in range(3):
        assert sent(function)(BLOCK).column_names == ["x", "a"]
    assert opens == ["a"]


def test_each_stage_opens_its_own() -> None:
    first, second = Counting("a"), Counting("b")
    assert [sent(function)(BLOCK).column_names[1] for function in (first, second, first)] == [
        "a",
        "b",
        "a",
    ]
    assert opens == ["a", "b"]


def test_an_error_is_raised_by_every_call() -> None:
    function = Counting("broken")
    for _ in range(2):
        with pytest.raises(BadInputError, match=r"^broken: cannot be opened$"):
            sent(function)(BLOCK)


def test_a_large_process_forgets_what_it_had_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Counting("a"), Counting("b")
    sent(first)(BLOCK)
    monkeypatch.setattr(opened, "MOST_KEPT_MB", 0)
    sent(second)(BLOCK)
    sent(second)(BLOCK)
    sent(first)(BLOCK)
    assert opens == ["a", "b", "a"]

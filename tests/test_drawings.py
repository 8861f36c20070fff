"""The line drawings are what their script makes, and can be read."""

from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs.make_drawings import DRAWINGS, FOLDER, WIDTH, Arrow, Box, Drawing, join

PAGES = sorted((Path(__file__).resolve().parents[1] / "docs").glob("*.md"))
LETTER = 8.6
"""Pixels of a letter of a box's text at most, on the mean of a line."""


def crosses(first: tuple[float, float], last: tuple[float, float], box: Box) -> bool:
    """Whether a line runs through a box, its edge left out."""
    left, top, right, bottom = box.sides
    for step in range(1, 400):
        x = first[0] + (last[0] - first[0]) * step / 400
        y = first[1] + (last[1] - first[1]) * step / 400
        if left + 1 < x < right - 1 and top + 1 < y < bottom - 1:
            return True
    return False


def overlap(first: Box, second: Box) -> bool:
    left, top, right, bottom = first.sides
    other_left, other_top, other_right, other_bottom = second.sides
    across = left < other_right and other_left < right
    return across and top < other_bottom and other_top < bottom


def test_the_folder_holds_the_drawings_and_no_other() -> None:
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(DRAWINGS)


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_file_is_what_the_script_makes(name: str) -> None:
    content = (FOLDER / f"{name}.svg").read_text("utf-8")
    assert content == DRAWINGS[name]().svg(), "python docs/make_drawings.py makes it anew"
    root = ElementTree.fromstring(content)
    assert root.findtext("{http://www.w3.org/2000/svg}title")
    assert "href" not in content and "@import" not in content and "url(" not in content


@pytest.mark.parametrize("name", DRAWINGS)
def test_nothing_runs_into_a_box(name: str) -> None:
    drawing: Drawing = DRAWINGS[name]()
    assert not [pair for pair in combinations(drawing.boxes.values(), 2) if overlap(*pair)]
    for box in drawing.boxes.values():
        left, top, right, bottom = box.sides
        assert left >= 0 and top >= 0 and right <= WIDTH and bottom <= drawing.height
        assert max(map(len, box.text)) * LETTER <= box.width, box.text
        for arrow in drawing.arrows:
            for first, last in zip(arrow.points, arrow.points[1:], strict=False):
                assert not crosses(first, last, box), (box.text, first, last)


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_page_shows_it_in_words_too(name: str) -> None:
    """The alternative text names every box."""
    (text,) = [page.read_text("utf-8") for page in PAGES if f"(drawings/{name}.svg)" in
               page.read_text("utf-8")]  # fmt: skip
    alternative = text.partition(f"](drawings/{name}.svg)")[0].rpartition("![")[2].split()
    said = " ".join(alternative).lower()
    for box in DRAWINGS[name]().boxes.values():
        for word in " ".join(box.text).replace("·", " ").replace("/", " ").split():
            assert word.lower().strip("().,?") in said or word == "20", word


def test_an_arrow_joins_two_boxes() -> None:
    boxes = {"a": Box(100, 20, ("a",), 60, 20), "b": Box(100, 90, ("b",), 60, 20)}
    assert join(boxes, "a", "b") == Arrow([(100, 30), (100, 80)])
    assert join(boxes, "a", "b", leave=90, reach=110).points == [(90, 30), (110, 80)]
    assert '<polygon class="head" points="100.0,80.0 ' in join(boxes, "a", "b").svg()

"""Templates that images fill by their seeds."""

import itertools
from collections import Counter

import pytest

from cldmray.anonymizers.diffusion import prompts

CHOICES = {"style": ["candid", "studio"], "light": ["sun", "lamp", "window"], "unused": ["x"]}
PROMPT = "a {style} image, {light}"


def test_a_seed_chooses_and_always_the_same() -> None:
    assert prompts.fill(PROMPT, CHOICES, 7) == prompts.fill(PROMPT, CHOICES, 7)
    assert prompts.fill("a face {", CHOICES, 7) == "a face {"
    fixed = {seed: prompts.fill(PROMPT, CHOICES, seed) for seed in range(4)}
    assert fixed == {
        0: "a candid image, window",
        1: "a studio image, lamp",
        2: "a studio image, lamp",
        3: "a studio image, lamp",
    }


def test_all_are_chosen_equally_often_and_independently() -> None:
    filled = Counter(prompts.fill(PROMPT, CHOICES, seed) for seed in range(3000))
    assert len(filled) == 6
    assert all(400 < count < 600 for count in filled.values())


def test_one_placeholder_in_two_templates() -> None:
    for seed in range(20):
        both = (prompts.fill(text, CHOICES, seed) for text in ("{style}", "no {style}"))
        first, second = both
        assert second == f"no {first}"


def test_every_prompt() -> None:
    filled = prompts.all_prompts((PROMPT, "not {style}"), CHOICES)
    assert set(filled) == {
        (f"a {style} image, {light}", f"not {style}")
        for style, light in itertools.product(CHOICES["style"], CHOICES["light"])
    }
    assert len(filled) == 6
    assert prompts.all_prompts(("plain", ""), CHOICES) == [("plain", "")]
    for seed in range(50):
        pair = tuple(prompts.fill(text, CHOICES, seed) for text in (PROMPT, "not {style}"))
        assert pair in filled


@pytest.mark.parametrize(
    ("prompt", "choices", "message"),
    [
        (
            "a {styel}",
            CHOICES,
            r"^prompt: has the placeholder \{styel\}, but prompt_choices has no styel",
        ),
        (
            "{a} {b}",
            {"a": [str(i) for i in range(40)], "b": [str(i) for i in range(26)]},
            "^prompt_choices: make more than 1000 different prompts",
        ),
    ],
)
def test_what_does_not_fit_is_named(
    prompt: str, choices: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        prompts.check({"prompt": prompt, "negative_prompt": ""}, choices)


def test_a_negative_prompt_is_checked_too() -> None:
    with pytest.raises(ValueError, match="^negative_prompt: has the placeholder"):
        prompts.check({"prompt": "", "negative_prompt": "{bad}"}, {})

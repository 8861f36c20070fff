"""Prompts with placeholders, which each image fills from lists by its own seed."""

import itertools
import re
from collections.abc import Mapping, Sequence

from cldmray.hashing import unit_hash

PLACE = re.compile(r"\{(\w+)\}")
MOST = 1000
"""Distinct prompts at most: each is encoded once, before the text encoder is freed."""

Choices = Mapping[str, Sequence[str]]


def check(texts: Mapping[str, str], choices: Choices) -> None:
    """Check that every placeholder has a list; a list may be left without a placeholder.

    Args:
        texts: templates by the name of their setting; ``{style}`` is a placeholder.
        choices: what may stand for each placeholder.

    Raises:
        ValueError: a placeholder has no list, or they make more than :data:`MOST` prompts;
            the message begins with the setting's name.
    """
    for key, text in texts.items():
        for name in PLACE.findall(text):
            if name not in choices:
                raise ValueError(
                    f"{key}: has the placeholder {{{name}}}, but prompt_choices has no {name}"
                )
    if len(all_prompts(tuple(texts.values()), choices, MOST)) > MOST:
        raise ValueError(f"prompt_choices: make more than {MOST} different prompts")


def fill(text: str, choices: Choices, seed: int) -> str:
    """A template with each placeholder filled: one of its list, uniformly by a hash of the seed.

    A placeholder that stands in several templates gets the same text in all of them.
    """

    def choice(place: re.Match[str]) -> str:
        options = choices[place[1]]
        return options[int(unit_hash("prompt", place[1], seed) * len(options))]

    return PLACE.sub(choice, text)


def all_prompts(
    texts: Sequence[str], choices: Choices, most: int | None = None
) -> list[tuple[str, ...]]:
    """All distinct ways to fill some templates together, in a fixed order.

    Args:
        most: where given, the search ends once there are more than these.
    """
    names = list(dict.fromkeys(name for text in texts for name in PLACE.findall(text)))
    filled: dict[tuple[str, ...], None] = {}
    for values in itertools.product(*(choices[name] for name in names)):
        single = {name: [value] for name, value in zip(names, values, strict=True)}
        filled[tuple(fill(text, single, 0) for text in texts)] = None
        if most is not None and len(filled) > most:
            break
    return list(filled)

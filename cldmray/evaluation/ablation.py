"""Ablation grid: anonymizers that differ only in how strongly their condition acts."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cldmray.anonymizers.base import AblationKey, Anonymizer


class AblationGrid(NamedTuple):
    """Anonymizers that differ in their control scale only.

    Attributes:
        none: name of the same anonymizer without a condition; None where there is none.
        names: of the others, by rising scale.
        scales: of each, > 0: the largest of its controls'.
    """

    none: str | None
    names: list[str]
    scales: list[float]


def ablation_grids(anonymizers: Iterable[Anonymizer]) -> list[AblationGrid]:
    """Grids of the conditioned anonymizers, in the order of their first members."""
    keys = [
        (anonymizer.name, key)
        for anonymizer in anonymizers
        if (key := anonymizer.ablation_key()) is not None
    ]
    unconditioned = {key.without_condition: name for name, key in keys if not key.scale}
    groups: dict[str, list[tuple[float, str, AblationKey]]] = {}
    for name, key in keys:
        if key.scale:
            groups.setdefault(key.without_scale, []).append((key.scale, name, key))
    grids = []
    for group in groups.values():
        members = sorted(group)
        none = unconditioned.get(members[0][2].without_condition)
        grids.append(
            AblationGrid(none, [name for _, name, _ in members], [scale for scale, _, _ in members])
        )
    return grids


def conditioned(anonymizers: Mapping[str, Anonymizer]) -> dict[str, Anonymizer]:
    """Those anonymizers, by key, that have a condition that acts."""
    return {key: anonymizer for key, anonymizer in anonymizers.items() if anonymizer.is_conditioned}

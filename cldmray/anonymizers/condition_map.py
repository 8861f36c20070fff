"""Publishes the condition itself: what a conditioned model is given, before it draws anything."""

from dataclasses import dataclass, field

from cldmray.anonymizers.base import Anonymizer, Batch, Redraw
from cldmray.anonymizers.labels import check_label
from cldmray.conditions.base import Condition
from cldmray.conditions.canny import Canny
from cldmray.faces.records import Pictures


@dataclass(frozen=True)
class ConditionMap(Anonymizer):
    """Replaces each picture by its condition map.

    No conditioned model can tell more of a person than its condition does, but for what it learnt
    of the very people; the attacks on the maps are therefore the upper end of what a better model
    under the same condition may give away.

    Attributes:
        condition: extractor of the maps.
        label: name in tables; None: ``<condition>-map``.
    """

    condition: Condition = field(default_factory=Canny)
    label: str | None = None

    def __post_init__(self) -> None:
        check_label(self.label)

    @property
    def name(self) -> str:
        return self.label or f"{self.condition.name}-map"

    def open(self) -> Redraw:
        return self._redraw

    def _redraw(self, batch: Batch) -> Pictures:
        return self.condition(batch.images)

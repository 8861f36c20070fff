"""The control: the photo itself."""

from dataclasses import dataclass

from cldmray.anonymizers.base import Anonymizer, Batch, Redraw
from cldmray.anonymizers.labels import check_label
from cldmray.faces.records import Pictures


@dataclass(frozen=True)
class Copy(Anonymizer):
    """Publishes every photo unchanged: what the attackers reach when nothing is hidden.

    Attributes:
        label: name in tables; None: ``copy``.
    """

    label: str | None = None

    def __post_init__(self) -> None:
        check_label(self.label)

    @property
    def name(self) -> str:
        return self.label or "copy"

    @property
    def is_control(self) -> bool:
        return True

    @property
    def unchanged(self) -> bool:
        return True

    def open(self) -> Redraw:
        return _copy


def _copy(batch: Batch) -> Pictures:
    return batch.images.copy()

"""What follows from an audit: the setting that may be released, and whether a pipeline stops."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Recommendation:
    """The setting that an audit recommends for release, if any.

    Attributes:
        name: of the setting; None: none can be recommended.
        reason: why, in a few sentences, with what it costs in utility.
        most_useful: the most useful candidate for release, whatever its risk; None: unknown.
        control: the control that utility is compared with; None: there is none.
        utility: for each measure the ``value`` of the recommended setting, beside that of
            ``most_useful`` and of ``control`` where they have one.
    """

    name: str | None
    reason: str
    most_useful: str | None = None
    control: str | None = None
    utility: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Gate:
    """Whether the rules of ``audit.fail_on`` hold, which fails the job.

    Attributes:
        rules: as ``k<20 or leak``; empty: the audit has none.
        reasons: for each setting and rule that holds, why; none: the gate is passed.

    >>> Gate("k<20", ("blur: k<20: the largest k not rejected is 2",)).outcome
    'failed'
    """

    rules: str = ""
    reasons: tuple[str, ...] = ()

    @property
    def outcome(self) -> Literal["none", "passed", "failed"]:
        """``none`` where there are no rules."""
        if not self.rules:
            return "none"
        return "failed" if self.reasons else "passed"

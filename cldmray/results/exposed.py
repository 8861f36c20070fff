"""Who is exposed: how many attacks identify each image, and how much of each identity.

Identities stand here as in the data. These tables stay with the results and do not go to MLflow.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa

EXPOSED = pa.schema(
    [
        pa.field("anonymizer", pa.string(), nullable=False),
        pa.field("protocol", pa.string(), nullable=False),
        pa.field("gallery", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("n_attackers", pa.int64(), nullable=False),
        pa.field("n_identified", pa.int64(), nullable=False),
        pa.field("attackers", pa.list_(pa.string()), nullable=False),
    ]
)
"""One row for each anonymized image: the attackers that identified it, and how many tried."""
EXPOSED_IDENTITIES = pa.schema(
    [
        pa.field("anonymizer", pa.string(), nullable=False),
        pa.field("gallery", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("attacker", pa.string(), nullable=False),
        pa.field("protocol", pa.string(), nullable=False),
        pa.field("n_images", pa.int64(), nullable=False),
        pa.field("n_identified", pa.float64(), nullable=False),
        pa.field("share", pa.float64(), nullable=False),
        pa.field("ci_low", pa.float64(), nullable=False),
        pa.field("ci_high", pa.float64(), nullable=False),
        pa.field("chance", pa.float64(), nullable=False),
        pa.field("n_attackers", pa.int64(), nullable=False),
        pa.field("n_identified_by_any", pa.int64(), nullable=False),
    ]
)
"""Fields of :class:`ExposedIdentity`."""


@dataclass(frozen=True)
class ExposedIdentity:
    """How much of one identity the strongest attack of one gallery identifies.

    Attributes:
        anonymizer, gallery: as in docs/results_files.md.
        identity: as in the data; show it as a hash.
        attacker, protocol: the attack with the highest rank-1 rate of this gallery.
        n_images: anonymized images of the identity.
        n_identified: those that it identifies; ties and several trainings make fractions.
        share: ``n_identified / n_images``, in [0, 1].
        ci_low, ci_high: its bounds, which hold for all identities of this anonymizer and gallery
            at once.
        chance: share of all images, whomever they show, that the attack takes for this identity.
        n_attackers: attackers that identify at least one image, in any protocol.
        n_identified_by_any: images that at least one attacker identifies, in any protocol.
    """

    anonymizer: str
    gallery: str
    identity: str
    attacker: str
    protocol: str
    n_images: int
    n_identified: float
    share: float
    ci_low: float
    ci_high: float
    chance: float
    n_attackers: int
    n_identified_by_any: int

    @property
    def is_significant(self) -> bool:
        """Whether it is identified significantly more often than by chance."""
        return self.ci_low > self.chance


def exposed_identities_table(identities: Sequence[ExposedIdentity]) -> pa.Table:
    """The identities as a table of schema :data:`EXPOSED_IDENTITIES`, in their order."""
    return pa.Table.from_pylist([asdict(each) for each in identities], EXPOSED_IDENTITIES)

"""Images of two people: the condition of one, the starting latents of the other.

Whom an attacker identifies in them tells what carries the identity (docs/measures.md, swap).
"""

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from cldmray.anonymizers.base import Anonymizer
from cldmray.engine.artifacts import Artifact, block_count
from cldmray.engine.cluster import TASK_CPUS, EngineConfig
from cldmray.engine.map_stages.anonymize import CONDITION_IMAGE, anonymize
from cldmray.errors import BadInputError
from cldmray.faces.records import ANONYMIZED, EVALUATION, FACES
from cldmray.hashing import unit_hash

SWAPPED = pa.schema(
    [
        *ANONYMIZED,
        pa.field("condition_id", pa.string(), nullable=False),
        pa.field("condition_identity", pa.string(), nullable=False),
        pa.field("pair", pa.string(), nullable=False),
    ]
)
"""``sample_id`` and ``identity`` are of the image that the image starts from, the
``condition_`` columns of the one whose condition steers it. People are swapped within a ``pair``,
and within one only, so that pairs are independent of each other."""


def identities_in_pairs(identities: Iterable[str], seed: int) -> dict[str, tuple[str, str]]:
    """Whose condition each person gets, and the name of their pair: by hash, in any order.

    People are swapped two by two; three of an odd number in a circle.

    Args:
        identities: of people, repeats allowed.

    Returns:
        For each person, another person and the name of the pair, which is that of a member.

    Raises:
        BadInputError: there are fewer than two people.
    """
    unique_identities = sorted(
        set(identities), key=lambda name: (unit_hash("swap", seed, name), name)
    )
    if len(unique_identities) < 2:
        raise BadInputError("a condition swap needs at least two people to be evaluated")
    last = len(unique_identities) - len(unique_identities) % 2
    groups = [unique_identities[start : start + 2] for start in range(0, last, 2)]
    groups[-1] += unique_identities[last:]
    return {
        identity: (group[(place + 1) % len(group)], group[0])
        for group in groups
        for place, identity in enumerate(group)
    }


def swap_images(group: pa.Table, partner_of: dict[str, str], seed: int) -> pa.Table:
    """Put another person's image beside each of a pair's: columns of ``condition_``.

    The images of both are brought in the order of a hash; the i-th gets the other's i-th,
    from the beginning again where the other has fewer.

    Args:
        group: all images of a pair, schema ``records.FACES``.
        partner_of: whose condition each person gets.
    """
    ids, identities = group["sample_id"].to_pylist(), group["identity"].to_pylist()
    order = sorted(range(len(ids)), key=lambda row: (unit_hash("swap", seed, ids[row]), ids[row]))
    images: dict[str, list[int]] = {identity: [] for identity in identities}
    for row in order:
        images[identities[row]].append(row)
    taken: Counter[str] = Counter()
    others = []
    for row in order:
        theirs = images[partner_of[identities[row]]]
        others.append(theirs[taken[identities[row]] % len(theirs)])
        taken[identities[row]] += 1
    table, partners = group.take(order), group.take(others)
    for name, column in (
        ("condition_id", "sample_id"),
        ("condition_identity", "identity"),
        (CONDITION_IMAGE, "image"),
    ):
        table = table.append_column(name, partners[column])
    return table


def swap_conditions(
    faces: Artifact, anonymizer: Anonymizer, audit_seed: int, engine: EngineConfig, folder: str
) -> None:
    """Anonymize every evaluation image under the condition of another person's image.

    Each image has the seed that it has in
    :func:`cldmray.engine.map_stages.anonymize.anonymize`, so that the condition is all that
    differs.

    Args:
        anonymizer: starts from the image, as diffusion does in ``img2img``.
        folder: gets a table of schema :data:`SWAPPED`.

    Raises:
        BadInputError: there are fewer than two evaluation people.
    """
    evaluated = faces.read(["identity"], EVALUATION)["identity"].to_pylist()
    partners = identities_in_pairs(evaluated, audit_seed)
    partner_of = {identity: partner for identity, (partner, _) in partners.items()}
    pair_of = {identity: pair for identity, (_, pair) in partners.items()}

    def label(block: pa.Table) -> pa.Table:
        table = block.filter(pc.equal(block["split"], EVALUATION))
        pairs = [pair_of[identity] for identity in table["identity"].to_pylist()]
        return table.append_column("pair", pa.array(pairs, pa.string()))

    def swap(group: pa.Table) -> pa.Table:
        return swap_images(group, partner_of, audit_seed)

    parts = block_count(len(evaluated), engine.block_rows)
    swapped = (
        faces.stream(FACES.names, engine.block_rows)
        .map_batches(label, batch_format="pyarrow", batch_size=None, num_cpus=TASK_CPUS)
        .groupby("pair", num_partitions=parts)
        .map_groups(swap, batch_format="pyarrow", num_cpus=TASK_CPUS)
    )
    anonymize(swapped, anonymizer, {EVALUATION: 1}, audit_seed, engine, folder, SWAPPED)

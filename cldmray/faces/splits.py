"""Splits of identities: auxiliary, attacker, attacker validation, evaluation."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from posixpath import basename, splitext
from typing import Annotated

import pyarrow as pa
from pydantic import Field

from cldmray.errors import BadInputError
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, AUXILIARY, EVALUATION, SPLITS
from cldmray.faces.sources.files import read_lines, read_pairs
from cldmray.hashing import identity_hash, safe_location, unit_hash
from cldmray.settings import checked_dataclass

LISTED = (AUXILIARY, ATTACKER, EVALUATION)
AUXILIARY_SALT = "background"
"""Enters the hash that divides people with few images: another text makes another split."""
CELEBA_SPLITS = {"0": AUXILIARY, "1": ATTACKER, "2": EVALUATION}


@checked_dataclass
class SplitConfig:
    """Settings of the split of identities; every choice is a hash of the seed and the identity.

    Attributes:
        seed: another seed divides the identities in another way.
        evaluation, attacker, auxiliary: files with one identity a line (local path or URI)
            that fix the split of that name.
        celeba_partition: CelebA's ``list_eval_partition.txt``; its train, valid and test people
            become auxiliary, attacker and evaluation. It excludes the three lists.
        n_evaluation_identities: how many identities are evaluated where no list names them.
        min_images: images that an identity needs to be evaluated.
        auxiliary_fraction: fraction in 0..1 of identities with fewer images that are auxiliary,
            which means that they may train an anonymizer.
        validation_fraction: fraction in 0..1 of the attacker's identities that validate the
            attacker.

    >>> config = SplitConfig(n_evaluation_identities=1, auxiliary_fraction=1.0)
    >>> splits = assign({"Ada": 9, "Ben": 2}, config)
    >>> splits["Ada"], splits["Ben"]
    ('evaluation', 'auxiliary')
    """

    seed: int = 0
    evaluation: str | None = None
    attacker: str | None = None
    auxiliary: str | None = None
    celeba_partition: str | None = None
    n_evaluation_identities: Annotated[int, Field(ge=1)] = 100
    min_images: Annotated[int, Field(ge=2)] = 5
    auxiliary_fraction: Annotated[float, Field(ge=0, le=1)] = 0.6
    validation_fraction: Annotated[float, Field(ge=0, le=1)] = 0.15

    def __post_init__(self) -> None:
        if self.celeba_partition and any(self._list_files().values()):
            raise ValueError(
                "celeba_partition: cannot be combined with lists of evaluation, attacker or "
                "auxiliary people"
            )

    def lists(self) -> dict[str, str]:
        """List files that are given, by the split that they fix."""
        return {split: uri for split, uri in self._list_files().items() if uri}

    def _list_files(self) -> dict[str, str | None]:
        return {AUXILIARY: self.auxiliary, ATTACKER: self.attacker, EVALUATION: self.evaluation}


def split_listing(listing: pa.Table, config: SplitConfig) -> dict[str, str]:
    """Split of each identity of a source's listing (schema ``records.LISTING``).

    Raises:
        BadInputError: see :func:`assign` and :func:`celeba_partition`.
    """
    identities: list[str] = listing["identity"].to_pylist()
    partition = None
    if config.celeba_partition:
        locations: list[str] = listing["location"].to_pylist()
        partition = celeba_partition(config.celeba_partition, locations, identities)
    return assign(Counter(identities), config, partition)


def assign(
    identities: Mapping[str, int],
    config: SplitConfig,
    partition: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Split of each identity, one of ``records.SPLITS``; who is left out has no entry.

    Without lists, those ``n_evaluation_identities`` with the smallest hash among the people with
    ``min_images`` images are evaluated, and the others go to the attacker. Of the people with
    fewer images ``auxiliary_fraction`` become auxiliary and the rest go to the attacker. A person
    who is added later moves nobody between auxiliary and attacker.

    A list fixes its split to exactly the people it names. The others follow the rule over the
    splits that have no list, and are left out where no such split takes them: where all three
    are listed, or where only evaluation is not and they are not chosen for it.

    Args:
        identities: images of each identity.
        config: the rule and the lists.
        partition: split (auxiliary, attacker or evaluation) of each identity, as
            :func:`celeba_partition` gives it; it replaces the rule and the lists.

    Raises:
        BadInputError: too few people for the evaluation, or a list that is empty, names
            somebody without images or somebody who is in another list.
    """
    if partition is not None:
        missing = sorted(set(identities) - set(partition))
        if missing:
            raise BadInputError(
                f"celeba_partition: identity {_hashed(missing[0])} is in no partition"
            )
        splits = {identity: partition[identity] for identity in identities}
    else:
        splits = _read_lists(identities, config)
        splits.update(_by_rule(identities, config, taken=splits))
    for identity, split in splits.items():
        chance = unit_hash("validation", config.seed, identity)
        if split == ATTACKER and chance < config.validation_fraction:
            splits[identity] = ATTACKER_VALIDATION
    return splits


def celeba_partition(
    uri: str, locations: Sequence[str], identities: Sequence[str]
) -> dict[str, str]:
    """Split of each identity by CelebA's partition of the images.

    Args:
        uri: ``list_eval_partition.txt``, lines ``000001.jpg 0``, or the same as CSV; 0 is train
            (auxiliary), 1 valid (attacker), 2 test (evaluation).
        locations: of the listed images; only the file's name without its extension counts.
        identities: of the same images.

    Raises:
        BadInputError: an image has no partition, or an identity has images in two.
    """
    lines = read_pairs(uri, "celeba_partition", "lines such as '000001.jpg 0'")
    partition = {splitext(image)[0]: split for image, split in lines.items()}
    splits: dict[str, str] = {}
    for location, identity in zip(locations, identities, strict=True):
        image = basename(location)
        split = CELEBA_SPLITS.get(partition.get(splitext(image)[0], ""))
        if split is None:
            raise BadInputError(
                f"celeba_partition: {uri} gives {safe_location(image)} none of 0, 1, 2 (names are "
                "hashed, see cldmray.hashing.safe_location)"
            )
        if splits.setdefault(identity, split) != split:
            raise BadInputError(
                f"celeba_partition: {uri} puts images of identity {_hashed(identity)} into "
                f"{splits[identity]} and {split}"
            )
    return splits


def assert_disjoint(pairs: Iterable[tuple[str, str]]) -> None:
    """Check that no identity stands in two splits.

    Args:
        pairs: identity and split, as from the columns of a table; repeated pairs are fine.

    Raises:
        BadInputError: an identity has two splits, or a split is none of ``records.SPLITS``.
    """
    seen: dict[str, str] = {}
    for identity, split in pairs:
        if split not in SPLITS:
            raise BadInputError(f"identity {_hashed(identity)} has the unknown split {split!r}")
        if seen.setdefault(identity, split) != split:
            raise BadInputError(
                f"identity {_hashed(identity)} is in two splits: {seen[identity]} and {split}"
            )


def _read_lists(identities: Mapping[str, int], config: SplitConfig) -> dict[str, str]:
    splits: dict[str, str] = {}
    lists = config.lists()
    for split, uri in lists.items():
        lines = read_lines(uri, split, "one identity a line")
        for number, identity in enumerate(lines, start=1):
            if identity not in identities:
                raise BadInputError(
                    f"{split}: {uri}: identity {number} in it, {_hashed(identity)}, has no images"
                )
            if splits.setdefault(identity, split) != split:
                other = lists[splits[identity]]
                raise BadInputError(
                    f"{split}: {uri} and {other} both have the identity {_hashed(identity)}"
                )
    return splits


def _by_rule(
    identities: Mapping[str, int], config: SplitConfig, taken: Mapping[str, str]
) -> dict[str, str]:
    """Splits of the people that no list names."""
    free = [split for split in LISTED if split not in config.lists()]
    others = sorted(set(identities) - set(taken))
    eligible = [identity for identity in others if identities[identity] >= config.min_images]
    evaluated: set[str] = set()
    if EVALUATION in free:
        if len(eligible) < config.n_evaluation_identities:
            raise BadInputError(_too_few(identities, len(eligible), config))
        ranked = sorted(
            eligible,
            key=lambda identity: (unit_hash("evaluation", config.seed, identity), identity),
        )
        evaluated = set(ranked[: config.n_evaluation_identities])
    splits = dict.fromkeys(sorted(evaluated), EVALUATION)
    for identity in others:
        if identity in evaluated:
            continue
        few = identities[identity] < config.min_images
        share = unit_hash(AUXILIARY_SALT, config.seed, identity)
        wanted = AUXILIARY if few and share < config.auxiliary_fraction else ATTACKER
        if wanted in free:
            splits[identity] = wanted
        elif AUXILIARY in free or ATTACKER in free:
            splits[identity] = AUXILIARY if AUXILIARY in free else ATTACKER
    return splits


def _too_few(identities: Mapping[str, int], eligible: int, config: SplitConfig) -> str:
    """Why nobody more can be evaluated, and what would do."""
    several = sum(count > 1 for count in identities.values())
    message = (
        f"{eligible} people have at least {config.min_images} images, but "
        f"{config.n_evaluation_identities} are to be evaluated"
    )
    if several < 2:
        return (
            f"{message}: of {len(identities)} people {several} have a second image, which an audit "
            "needs; is each folder a person? (cldmray plan faces=DIR tells)"
        )
    cures = [f"{several} people have at least 2: lower splits.min_images"] * (several > eligible)
    if eligible > 2:
        most = eligible * 2 // 3
        cure = f"set splits.n_evaluation_identities={most} or less (attackers need the others)"
        cures.insert(0, cure)
    return f"{message}; {', or '.join(cures)}, or add images"


def _hashed(identity: str) -> str:
    return f"{identity_hash(identity)} (cldmray.hashing.identity_hash of the name)"

"""What the attacker gets to see: the faces table and every anonymizer's table."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from cldmray import hashing
from cldmray.attackers.base import Attacker
from cldmray.config.audit import AuditConfig
from cldmray.engine.artifacts import Artifact
from cldmray.engine.map_stages.anonymize import anonymize, anonymize_groups, samples_per_split
from cldmray.engine.map_stages.faces import load_faces
from cldmray.engine.map_stages.near_duplicates import find_near_duplicates, pairs_of
from cldmray.engine.stages import StageHandle, Stages, StageSpec
from cldmray.errors import BadInputError, CldmrayError
from cldmray.faces.base import FaceSource
from cldmray.faces.records import (
    ATTACKER,
    ATTACKER_VALIDATION,
    AUXILIARY,
    EVALUATION,
    listing_notes,
)
from cldmray.faces.splits import assert_disjoint, split_listing
from cldmray.gallery.identities import distractor_listing, reference_listing, reference_note
from cldmray.gallery.near_duplicates import content_ids
from cldmray.pipelines.data_notes import (
    alignment_notes,
    duplicate_notes,
    duplicates_of_evaluated,
    hidden,
    lost_images,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listing:
    """The samples that an audit uses.

    Attributes:
        samples: ``records.LISTING`` with the column ``split``.
        notes: caveats for the report.
    """

    samples: pa.Table
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PreparedImages:
    """What the attackers get to see.

    Attributes:
        faces: the table of originals.
        anonymized: table of each anonymizer, by its key.
        notes: caveats for the report.
        content_ids: of images that have near-duplicates, see
            :func:`cldmray.gallery.near_duplicates.content_ids`.
        distractors: tables of originals whose people are never probed, and which splits of each.
        references: table of ``gallery.references``; None: the originals are the references.
    """

    faces: Artifact
    anonymized: dict[str, Artifact]
    notes: list[str]
    content_ids: Mapping[str, str]
    distractors: list[tuple[Artifact, tuple[str, ...]]] = field(default_factory=list)
    references: Artifact | None = None

    @property
    def originals(self) -> list[Artifact]:
        """All tables that references are of."""
        others = [table for table, _ in self.distractors]
        own = [] if self.references is None else [self.references]
        return list({table.key: table for table in (self.faces, *others, *own)}.values())


class DataPreparation:
    """Lists, reads and anonymizes the images of an audit.

    Args:
        config: the audit.
        stages: runs and remembers the stages.
    """

    def __init__(self, config: AuditConfig, stages: Stages) -> None:
        self.config = config
        self.stages = stages
        self._auxiliary = any(
            AUXILIARY in attacker.training_splits for attacker in config.attackers.values()
        )

    def check(self) -> None:
        """Find out before any work starts whether sources and anonymizers have what they need.

        Raises:
            CldmrayError: a package or file is absent, or a file is incomplete or of a refused kind;
                the message begins with the key.
        """
        config = self.config
        for key, source in {"faces": config.faces, **config.further_sources}.items():
            try:
                source.check()
            except CldmrayError as error:
                raise type(error)(f"{key}: {error}") from error
        if getattr(config.faces, "groups_file", None) is not None:
            config.faces.groups()
        for key, anonymizer in self.config.anonymizers.items():
            try:
                anonymizer.check()
                hashing.canonicalize(anonymizer)
            except CldmrayError as error:
                raise type(error)(f"anonymizers.{key}: {error}") from error

    def run(self, listing: Listing) -> PreparedImages:
        """Read the images, and anonymize them by all anonymizers beside each other.

        Args:
            listing: the samples.

        Raises:
            BadInputError: too many files cannot be used, or too few people remain.
        """
        faces, contents, notes = self.distinct_faces(listing.samples)
        stages = {
            key: self.stages.submit(self.anonymize_stage(key, faces))
            for key in self.config.anonymizers
        }
        anonymized = {key: self.stages.result(stage) for key, stage in stages.items()}
        references, reference_notes = self._references(listing.samples)
        distractors, more = self._distractors(faces, references)
        notes = [*listing.notes, *notes, *self._unusable_notes(faces, anonymized), *more]
        if references is not None:
            contents = _contents(self._near_duplicates(faces, references))
        notes += reference_notes
        return PreparedImages(faces, anonymized, notes, contents, distractors, references)

    def _references(self, listing: pa.Table) -> tuple[Artifact | None, list[str]]:
        """The table of ``gallery.references``, and a note on whom it shows."""
        settings = self.config.gallery
        source, references = settings.references, reference_listing(settings, listing)
        if source is None or references is None:
            return None, []
        table = self.stages.result(self.stages.submit(self._read_stage(source, references)))
        return table, [reference_note(table.read(["identity"]), listing)]

    def _distractors(
        self, faces: Artifact, references: Artifact | None
    ) -> tuple[list[tuple[Artifact, tuple[str, ...]]], list[str]]:
        """Originals that stand in the galleries beside those of evaluated people, and notes.

        Copies of evaluated images and of references are left out of ``gallery.faces``.
        """
        tables: list[tuple[Artifact, tuple[str, ...]]] = []
        if splits := self.config.gallery.distractor_splits:
            tables.append((faces, splits))
        settings = self.config.gallery
        source, listing = settings.faces, distractor_listing(settings, self.config.faces)
        if source is None or listing is None:
            return tables, []
        strangers = self.stages.result(self.stages.submit(self._read_stage(source, listing)))
        own = (faces,) if references is None else (faces, references)
        copies = duplicates_of_evaluated(self._near_duplicates(*own, strangers))
        twice = pc.is_in(listing["sample_id"], pa.array(copies, pa.string()))
        if not pc.any(twice).as_py():
            return [*tables, (strangers, (ATTACKER,))], []
        kept = self._read_stage(source, listing.filter(pc.invert(twice)))
        strangers = self.stages.result(self.stages.submit(kept))
        originals = "evaluated images" if references is None else "evaluated images or references"
        note = (
            f"{pc.sum(twice).as_py()} images of gallery.faces are near-duplicates of {originals}; "
            "they were left out, since an attack that finds one would count as wrong."
        )
        return [*tables, (strangers, (ATTACKER,))], [note]

    def training_listing(self) -> pa.Table | None:
        """Samples that the anonymizers were trained on, with their split; None: nobody knows."""
        source = self.config.audit.training_faces
        if source is None:
            return None
        listing = source.listing()
        split = pa.array([AUXILIARY] * len(listing), pa.string())
        return listing.append_column("split", split)

    def training_faces(self) -> Artifact | None:
        """The table of images that the anonymizers were trained on; None: nobody knows them."""
        source, listing = self.config.audit.training_faces, self.training_listing()
        if source is None or listing is None:
            return None
        return self.stages.result(self.stages.submit(self._read_stage(source, listing)))

    def listing(self) -> Listing:
        """Samples of the people who are audited or train the attacker, with their splits.

        Raises:
            BadInputError: nobody could be named among the people who are audited, or an
                anonymizer or attacker was trained on them.
        """
        config = self.config
        listing = config.faces.listing()
        splits = split_listing(listing, config.splits)
        column = [splits.get(identity, "") for identity in listing["identity"].to_pylist()]
        listing = listing.append_column("split", pa.array(column, pa.string()))
        used = [EVALUATION, ATTACKER, ATTACKER_VALIDATION]
        if self._auxiliary or AUXILIARY in config.gallery.distractor_splits:
            used.append(AUXILIARY)
        kept = listing.filter(pc.is_in(listing["split"], pa.array(used)))
        assert_disjoint(zip(kept["identity"].to_pylist(), kept["split"].to_pylist(), strict=True))
        identities = Counter(splits.values())
        logger.info(
            f"{config.faces.name}: {listing.num_rows} images of {len(splits)} people; "
            + ", ".join(f"{identities[split]} {split}" for split in used)
        )
        notes = listing_notes(listing)
        for note in notes:
            logger.info(note)
        self._audited(kept)
        self._check_training(kept, identities)
        notes += self._missing_notes(kept)
        notes += self._refuse_trained({i for i, split in splits.items() if split == EVALUATION})
        if self._auxiliary:
            auxiliary = {i for i, split in splits.items() if split == AUXILIARY}
            notes += self._auxiliary_notes(auxiliary)
        return Listing(kept, notes)

    def _check_training(self, listing: pa.Table, identities: Mapping[str, int]) -> None:
        """Find out before any work whether attackers have people to learn from and to validate on.

        Those who learn from anonymized images are left out by the runner, with a note, where there
        are none; on whom they can be validated they say themselves.

        A rate on validation people is measured on those with a second image.

        Args:
            listing: samples of the people who are used, with their splits.
            identities: number of people of each split.

        Raises:
            BadInputError: one has too few; the message begins with the attacker's key.
        """
        validating = listing.filter(pc.equal(listing["split"], ATTACKER_VALIDATION))
        images = Counter(validating["identity"].to_pylist())
        repeated = sum(count > 1 for count in images.values())
        for key, attacker in self.config.attackers.items():
            if attacker.max_steps is None:
                continue
            if attacker.learns_from_anonymized:
                if self._learns(attacker, listing):
                    try:
                        attacker.check_validation(validating["identity"].to_pylist())
                    except BadInputError as error:
                        raise BadInputError(f"attackers.{key}: {error}") from error
                continue
            learnt = sum(identities.get(split, 0) for split in attacker.training_splits)
            if learnt < 2 or not repeated:
                raise BadInputError(
                    f"attackers.{key}: {attacker.name} learns from at least 2 people who are not "
                    "evaluated and validates on at least 1 with 2 images, but there are "
                    f"{learnt} and {repeated}: lower splits.n_evaluation_identities, raise "
                    "splits.validation_fraction, or leave the attacker out"
                )

    def _learns(self, attacker: Attacker, listing: pa.Table) -> bool:
        """Whether an anonymizer has images for an attacker to learn from and to validate on."""
        needed = [
            listing.filter(pc.equal(listing["split"], split))["sample_id"].to_pylist()
            for split in (ATTACKER, ATTACKER_VALIDATION)
        ]
        return all(needed) and any(
            attacker.can_attack(anonymizer)
            and all(anonymizer.select(samples).any() for samples in needed)
            for anonymizer in self.config.anonymizers.values()
        )

    def groups(self, listing: pa.Table) -> tuple[pa.Table | None, list[str]]:
        """The groups that the source knows, see :meth:`FaceSource.groups`, and notes on them.

        Raises:
            BadInputError: a file of groups cannot be understood.
        """
        groups = self.config.faces.groups()
        audited = listing.filter(pc.equal(listing["split"], EVALUATION))["identity"]
        if groups is None or pc.any(pc.is_in(audited, groups["identity"])).as_py():
            return groups, []
        note = (
            "The source names groups of people, but of nobody who is audited: no row of the "
            "results is of a group."
        )
        return groups, [note]

    def _audited(self, table: pa.Table) -> Counter[str]:
        """Images of each person who is audited, by the columns ``identity`` and ``split``.

        Raises:
            BadInputError: there are fewer than two people, or no probe would ever have a reference.
        """
        rows = table.filter(pc.equal(table["split"], EVALUATION))
        images = Counter(rows["identity"].to_pylist())
        if len(images) < 2:
            subject = f"only {hidden(next(iter(images)))} has" if images else "nobody has"
            raise BadInputError(
                f"splits: of the people to be evaluated {subject} a usable image, and a gallery "
                "needs at least two people who can be confused; evaluate more (splits.evaluation, "
                "splits.n_evaluation_identities, splits.min_images)"
            )
        if max(images.values()) < 2:
            self._refuse_single_images(len(images))
        return images

    def _refuse_single_images(self, n_identities: int) -> None:
        """Raise BadInputError where a gallery or an attacker needs a second image of a person."""
        config = self.config
        enough = {"source_included"}
        if config.gallery.references is not None:
            enough.add("source_excluded")
        needed = [name for name in config.audit.galleries if name not in enough]
        if needed:
            raise BadInputError(
                f"audit.galleries: {needed[0]} needs a second image of a person, and all "
                f"{n_identities} people to be evaluated have one; add images, or measure "
                "source_included alone, by attackers such as condition_match"
            )
        for key, attacker in config.attackers.items():
            if attacker.recognizes_clean_faces:
                raise BadInputError(
                    f"attackers.{key}: how well {attacker.name} recognises clean faces cannot be "
                    f"told where all {n_identities} people to be evaluated have one image; add "
                    "images, or leave it out"
                )

    def _unusable_notes(self, faces: Artifact, anonymized: Mapping[str, Artifact]) -> list[str]:
        """A note on every anonymizer some of whose images cannot be used, for each split of people.

        Raises:
            BadInputError: of evaluated people they are more than ``audit.max_invalid_fraction``
                allows.
        """
        allowed, notes = self.config.audit.max_invalid_fraction, []
        asked = {split: count for split, count in self.samples.items() if count}
        listed = {split: faces.read(["sample_id"], split)["sample_id"] for split in asked}
        for key, table in anonymized.items():
            for lost in lost_images(table, self.config.anonymizers[key], listed, asked):
                if lost.split == EVALUATION and lost.number > allowed * lost.total:
                    raise BadInputError(
                        f"anonymizers.{key}: {lost.subject}, more than "
                        f"audit.max_invalid_fraction={allowed:g} allows: {lost.reasons}"
                    )
                logger.warning(lost.subject)
                notes.append(lost.note)
        return notes

    def _missing_notes(self, listing: pa.Table) -> list[str]:
        """A note on every anonymizer that has images of some of the evaluated ones only.

        Raises:
            BadInputError: one has images of none.
        """
        rows = listing.filter(pc.equal(listing["split"], EVALUATION))
        samples, identities = rows["sample_id"].to_pylist(), rows["identity"].to_pylist()
        notes = []
        for key, anonymizer in self.config.anonymizers.items():
            kept = anonymizer.select(samples)
            count, total = int(kept.sum()), len(samples)
            if not count:
                raise BadInputError(
                    f"anonymizers.{key}: {anonymizer.name} has an image of none of the {total} "
                    "images of the people to be evaluated; evaluate others (splits.evaluation), or "
                    "anonymize these"
                )
            if count == total:
                continue
            whose = {identity for identity, has in zip(identities, kept, strict=True) if has}
            absent = next(sample for sample, has in zip(samples, kept, strict=True) if not has)
            note = (
                f"{anonymizer.name} has {count} of the {total} images of evaluated people, of "
                f"{len(whose)} of {len(set(identities))} people (none of image {absent}, for "
                "example): all that is said of it is about these."
            )
            logger.warning(note)
            notes.append(note)
        return notes

    def _auxiliary_notes(self, auxiliary: set[str]) -> list[str]:
        """A note on every anonymizer that was trained on people from whom attackers learn too."""
        notes = []
        for anonymizer in self.config.anonymizers.values():
            count = len(_trained_on(auxiliary, anonymizer.trained_on()))
            if count:
                notes.append(
                    f"{anonymizer.name} was trained on {count} of the {len(auxiliary)} auxiliary "
                    "people from whom attackers learnt too (train_on_auxiliary): it may treat "
                    "them otherwise than the people who are audited."
                )
        return notes

    def _refuse_trained(self, evaluated: set[str]) -> list[str]:
        """Notes on models that were trained on evaluated people, where that is allowed.

        Raises:
            BadInputError: it is not allowed.
        """
        config, notes = self.config, []
        models = {f"anonymizers.{key}": model for key, model in config.anonymizers.items()} | {
            f"attackers.{key}": model for key, model in config.attackers.items()
        }
        for key, model in models.items():
            trained = _trained_on(evaluated, model.trained_on())
            if not trained:
                continue
            message = (
                f"{key}: {model.name} was trained on {len(trained)} of the {len(evaluated)} "
                f"people to be evaluated (one is {trained[0]})"
            )
            if not config.audit.allow_trained_identities:
                raise BadInputError(
                    f"{message}; evaluate other people (splits.evaluation, splits.min_images), or "
                    "set audit.allow_trained_identities=true"
                )
            notes.append(f"{message}, which was allowed by audit.allow_trained_identities.")
        return notes

    def faces(self, listing: pa.Table) -> tuple[Artifact, list[str]]:
        """The table of originals, and notes on it.

        Raises:
            BadInputError: too many files cannot be used, or too few people remain.
        """
        config = self.config
        table = self.stages.result(self.stages.submit(self.faces_stage(listing)))
        bad = table.manifest.rejected
        if bad:
            logger.warning(
                "%d of %d files cannot be used; the report lists them", bad, listing.num_rows
            )
        if bad > config.audit.max_invalid_fraction * listing.num_rows:
            examples = table.rejected().slice(0, 3).to_pylist()
            reasons = "; ".join(f"image {row['sample_id']}: {row['reason']}" for row in examples)
            raise BadInputError(
                f"{bad} of {listing.num_rows} files cannot be used, more than "
                f"audit.max_invalid_fraction={config.audit.max_invalid_fraction:g} allows: "
                f"{reasons} ... (all, with their names, in {table.folder}/rejected.parquet)"
            )
        images = self._audited(table.read(["identity", "split"]))
        notes = alignment_notes(config.faces, table)
        single = sorted(identity for identity, count in images.items() if count == 1)
        if not single:
            return table, notes
        note = (
            f"{len(single)} of the {len(images)} evaluated people have one usable image only (one "
            f"is {hidden(single[0])}): it stands in everybody's gallery, but is a probe only "
            "where the gallery includes the source."
        )
        return table, [*notes, note]

    def distinct_faces(self, listing: pa.Table) -> tuple[Artifact, Mapping[str, str], list[str]]:
        """The table of originals, without near-duplicates of evaluated images in other splits.

        Such an image would let an attacker or an anonymizer learn from what it is tested on, so it
        is left out, and the images are read once more without it. So are people who were chosen
        for images that turned out to be none.

        Returns:
            The table, content ids of the images that have near-duplicates, and notes.

        Raises:
            BadInputError: see :meth:`faces`.
        """
        table, notes = self.faces(listing)
        pairs = self._near_duplicates(table)
        leaked = duplicates_of_evaluated(pairs)
        unfit, short_notes = self._short_of_images(table, listing)
        if leaked:
            logger.warning(
                "%d images of other splits are near-duplicates of evaluated ones and left out",
                len(leaked),
            )
        if leaked or unfit:
            left_out = pa.array([*leaked, *unfit], pa.string())
            kept = pc.invert(pc.is_in(listing["sample_id"], left_out))
            table, notes = self.faces(listing.filter(kept))
        return table, _contents(pairs), [*notes, *short_notes, *duplicate_notes(pairs)]

    def _short_of_images(self, faces: Artifact, listing: pa.Table) -> tuple[list[str], list[str]]:
        """Usable images of evaluated people who have fewer of them than the rule asks for.

        Images that cannot be decoded counted where the rule chose these people.

        Returns:
            Sample ids, none where a list chose the people; and a note if there are any.
        """
        splits = self.config.splits
        if splits.evaluation is not None or splits.celeba_partition is not None:
            return [], []
        images = self._audited(faces.read(["identity", "split"]))
        short = sorted(name for name, count in images.items() if count < splits.min_images)
        if not short:
            return [], []
        note = (
            f"{len(short)} people are not evaluated, because fewer of their images than "
            f"splits.min_images={splits.min_images} can be used (one is {hidden(short[0])})."
        )
        logger.warning(note)
        unusable = faces.rejected()["sample_id"]
        unfit = pc.and_(
            pc.is_in(listing["identity"], pa.array(short, pa.string())),
            pc.invert(pc.is_in(listing["sample_id"], unusable)),
        )
        return listing.filter(unfit)["sample_id"].to_pylist(), [note]

    def _near_duplicates(self, *faces: Artifact) -> pa.Table:
        """Pairs among all images of some tables, see :func:`find_near_duplicates`."""
        engine = self.config.engine

        def produce(folder: str) -> None:
            find_near_duplicates(faces, engine, folder)

        stage = StageSpec(
            "near-duplicates", {}, [*faces], produce, "find near-duplicates", engine.task_stage
        )
        return pairs_of(self.stages.result(self.stages.submit(stage)))

    @property
    def samples(self) -> dict[str, int]:
        """How often the images of each split are anonymized."""
        queried = any(
            attacker.learns_from_anonymized for attacker in self.config.attackers.values()
        )
        samples_per_image = self.config.audit.samples_per_image if queried else 0
        return samples_per_split(samples_per_image, self._auxiliary)

    def faces_stage(self, listing: pa.Table) -> StageSpec:
        """The stage that reads, crops and checks the images."""
        return self._read_stage(self.config.faces, listing)

    def _read_stage(self, source: FaceSource, listing: pa.Table) -> StageSpec:
        """The stage that reads the listed images of a source."""
        engine = self.config.engine
        rows = zip(
            *(listing[name].to_pylist() for name in ("sample_id", "version", "split")), strict=True
        )
        settings = {"source": source, "listing": hashing.fingerprint_rows(map(repr, rows))}

        def produce(folder: str) -> None:
            load_faces(source, listing, engine, folder)

        return StageSpec("faces", settings, [], produce, f"read {source.name}", engine.task_stage)

    def anonymize_stage(self, key: str, faces: Artifact | StageHandle) -> StageSpec:
        """The stage that anonymizes all images by one anonymizer, the one with this key.

        Args:
            faces: the stage of the images, or its artifact.
        """
        config, samples = self.config, self.samples
        anonymizer = config.anonymizers[key]
        name, engine = anonymizer.name, config.engine
        seed = config.audit.seed
        settings = {"anonymizer": anonymizer, "samples": samples, "seed": seed}
        if anonymizer.grouping is None:
            produce = partial(anonymize, faces, anonymizer, samples, seed, engine)
            resources = engine.pool_stage(anonymizer.gpus_per_actor(engine.gpus_per_actor))
        else:
            produce = partial(anonymize_groups, faces, anonymizer.grouping, samples, engine)
            resources = engine.task_stage
        return StageSpec(
            f"anonymize-{name}", settings, [faces], produce, f"anonymize by {name}", resources
        )


def _contents(pairs: pa.Table) -> Mapping[str, str]:
    """Content ids of pairs of near-duplicates."""
    columns = (pairs[name].to_pylist() for name in ("sample_id", "other_sample_id"))
    return content_ids(list(zip(*columns, strict=True)))


def _trained_on(identities: set[str], hashes: frozenset[str]) -> list[str]:
    """Hashes of those identities that a model was trained on, sorted."""
    return sorted(hashes & {hashing.identity_hash(identity) for identity in identities})

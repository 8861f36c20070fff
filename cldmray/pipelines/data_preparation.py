"""What the attacker gets to see: the faces table and every anonymizer's table."""

import logging
from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from cldmray import hashing
from cldmray.config.audit import AuditConfig
from cldmray.engine.anonymize import anonymize, anonymize_groups, samples_per_split
from cldmray.engine.artifacts import Artifact
from cldmray.engine.faces import load_faces
from cldmray.engine.stages import StageHandle, Stages, StageSpec
from cldmray.errors import BadInputError, CldmrayError
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, AUXILIARY, EVALUATION
from cldmray.faces.splits import assert_disjoint, split_listing

logger = logging.getLogger(__name__)


class DataPreparation:
    """Loads and anonymizes the images of an audit.

    Args:
        config: the audit.
        stages: runs and remembers the stages.

    Attributes:
        notes: caveats for the report.
    """

    def __init__(self, config: AuditConfig, stages: Stages) -> None:
        self.config = config
        self.stages = stages
        self.notes: list[str] = []
        self._auxiliary = any(
            AUXILIARY in attacker.training_splits for attacker in config.attackers.values()
        )

    def check(self) -> None:
        """Find out before any work starts whether every anonymizer has what it needs.

        Raises:
            CldmrayError: a package or file is absent, or a file is incomplete or of a refused kind;
                the message begins with the anonymizer's key.
        """
        for key, anonymizer in self.config.anonymizers.items():
            try:
                anonymizer.check()
                hashing.canonicalize(anonymizer)
            except CldmrayError as error:
                raise type(error)(f"anonymizers.{key}: {error}") from error

    def listing(self) -> pa.Table:
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
        if self._auxiliary:
            used.append(AUXILIARY)
        kept = listing.filter(pc.is_in(listing["split"], pa.array(used)))
        assert_disjoint(zip(kept["identity"].to_pylist(), kept["split"].to_pylist(), strict=True))
        identities = Counter(splits.values())
        logger.info(
            f"{config.faces.name}: {listing.num_rows} images of {len(splits)} people; "
            + ", ".join(f"{identities[split]} {split}" for split in used)
        )
        self._audited(kept)
        self._refuse_trained({i for i, split in splits.items() if split == EVALUATION})
        if self._auxiliary:
            self._note_auxiliary({i for i, split in splits.items() if split == AUXILIARY})
        return kept

    def groups(self, listing: pa.Table) -> pa.Table | None:
        """The groups that the source knows of, see :meth:`FaceSource.groups`.

        Raises:
            BadInputError: a file of groups cannot be understood.
        """
        found = self.config.faces.groups()
        audited = listing.filter(pc.equal(listing["split"], EVALUATION))["identity"]
        if found is not None and not pc.any(pc.is_in(audited, found["identity"])).as_py():
            self.notes.append(
                "The source names groups of people, but of nobody who is audited: no row of the "
                "results is of a group."
            )
        return found

    def _audited(self, table: pa.Table) -> Counter[str]:
        """Images of each person who is audited, by the columns ``identity`` and ``split``.

        Raises:
            BadInputError: there are fewer than two people, or no probe would ever have a reference.
        """
        rows = table.filter(pc.equal(table["split"], EVALUATION))
        images = Counter(rows["identity"].to_pylist())
        if len(images) < 2:
            who = f"only {next(iter(images))!r} has" if images else "nobody has"
            raise BadInputError(
                f"splits: of the people to be evaluated {who} a usable image, and a gallery "
                "needs at least two people who can be confused; evaluate more (splits.evaluation, "
                "splits.n_evaluation_identities, splits.min_images)"
            )
        needed = [name for name in self.config.audit.galleries if name != "source_included"]
        if needed and max(images.values()) < 2:
            raise BadInputError(
                f"audit.galleries: {needed[0]} needs a second image of a person, and all "
                f"{len(images)} people to be evaluated have one; add images, or measure "
                "source_included alone"
            )
        return images

    def _note_auxiliary(self, auxiliary: set[str]) -> None:
        for anonymizer in self.config.anonymizers.values():
            known = anonymizer.trained_on()
            seen = sum(hashing.identity_hash(identity) in known for identity in auxiliary)
            if seen:
                self.notes.append(
                    f"{anonymizer.name} was trained on {seen} of the {len(auxiliary)} background "
                    "people from whom attackers learnt too (train_on_auxiliary): it may treat "
                    "them otherwise than the people who are audited."
                )

    def _refuse_trained(self, evaluated: set[str]) -> None:
        named: dict[str, tuple[str, frozenset[str]]] = {
            f"anonymizers.{key}": (anonymizer.name, anonymizer.trained_on())
            for key, anonymizer in self.config.anonymizers.items()
        }
        for key, attacker in self.config.attackers.items():
            named[f"attackers.{key}"] = attacker.name, attacker.trained_on()
        for key, (name, known) in named.items():
            seen = sorted(
                identity for identity in evaluated if hashing.identity_hash(identity) in known
            )
            if not seen:
                continue
            message = (
                f"{key}: {name} was trained on {len(seen)} of the "
                f"{len(evaluated)} people to be evaluated (one is {seen[0]!r})"
            )
            if not self.config.audit.allow_trained_identities:
                raise BadInputError(
                    f"{message}; evaluate other people (splits.evaluation, splits.min_images), or "
                    "set audit.allow_trained_identities=true"
                )
            self.notes.append(f"{message}, which was allowed by audit.allow_trained_identities.")

    def faces(self, listing: pa.Table) -> Artifact:
        """The decoded images; stops where too many files are bad."""
        config = self.config
        table = self.stages.result(self.stages.submit(self.faces_stage(listing)))
        bad = table.manifest.rejected
        if bad:
            logger.info(f"{bad} of {listing.num_rows} files cannot be used; the report lists them")
        if bad > config.audit.max_invalid_fraction * listing.num_rows:
            examples = table.rejected().slice(0, 3).to_pylist()
            reasons = "; ".join(f"{row['location']}: {row['reason']}" for row in examples)
            raise BadInputError(
                f"{bad} of {listing.num_rows} files cannot be used, more than "
                f"audit.max_invalid_fraction={config.audit.max_invalid_fraction:g} allows: {reasons} ... "
                f"(all in {table.folder}/rejected.parquet)"
            )
        images = self._audited(table.read(["identity", "split"]))
        alone = sorted(identity for identity, count in images.items() if count == 1)
        if alone:
            self.notes.append(
                f"{len(alone)} of the {len(images)} evaluated people have one usable image "
                f"only (one is {alone[0]!r}): it stands in everybody's gallery, but is a probe "
                "only where the gallery includes the source."
            )
        return table

    def anonymize(self, key: str, faces: Artifact) -> Artifact:
        """The anonymized images of one anonymizer."""
        return self.stages.result(self.stages.submit(self.anonymize_stage(key, faces)))

    def anonymize_all(self, faces: Artifact) -> dict[str, Artifact]:
        """The images of every anonymizer, by its key; they are made beside each other."""
        stages = {
            key: self.stages.submit(self.anonymize_stage(key, faces))
            for key in self.config.anonymizers
        }
        return {key: self.stages.result(stage) for key, stage in stages.items()}

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
        config = self.config
        rows = zip(
            *(listing[name].to_pylist() for name in ("sample_id", "version", "split")), strict=True
        )
        settings = {"source": config.faces, "listing": hashing.fingerprint_rows(map(repr, rows))}

        def produce(folder: str) -> None:
            load_faces(config.faces, listing, config.engine, folder)

        title = f"read {config.faces.name}"
        return StageSpec("faces", settings, [], produce, title, config.engine.task_stage)

    def anonymize_stage(self, key: str, faces: Artifact | StageHandle) -> StageSpec:
        """The stage that anonymizes all images by one anonymizer, the one with this key.

        Args:
            faces: the stage of the images, or its artifact.
        """
        config, samples = self.config, self.samples
        anonymizer = config.anonymizers[key]
        name, engine = anonymizer.name, config.engine
        settings = {"anonymizer": anonymizer, "samples": samples, "seed": config.audit.seed}

        def produce(folder: str) -> None:
            table = faces.result() if isinstance(faces, StageHandle) else faces
            if anonymizer.grouping is None:
                anonymize(table, anonymizer, samples, config.audit.seed, engine, folder)
            else:
                anonymize_groups(table, anonymizer.grouping, samples, engine, folder)

        resources = engine.task_stage
        if anonymizer.grouping is None:
            resources = engine.pool_stage(anonymizer.gpus_per_actor(engine.gpus_per_actor))
        return StageSpec(
            f"anonymize-{name}", settings, [faces], produce, f"anonymize by {name}", resources
        )

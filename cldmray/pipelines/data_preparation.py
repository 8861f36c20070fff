"""What the attacker gets to see: the faces table and every anonymizer's table."""

from collections import Counter
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from cldmray import hashing
from cldmray.anonymizers.base import GroupAnonymizer
from cldmray.attackers.base import TrainedRung
from cldmray.attackers.reconstruction.attacker import InversionRung
from cldmray.attackers.reconstruction.diffusion import DiffusionInversion
from cldmray.config.audit import AuditConfig
from cldmray.engine.anonymize import anonymize, anonymize_groups, evaluation_draws
from cldmray.engine.artifacts import StageTable
from cldmray.engine.faces import load_faces
from cldmray.engine.stages import Stages, Work
from cldmray.errors import BadInputError, CldmrayError
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, BACKGROUND, EVALUATION
from cldmray.faces.splits import assert_disjoint, split_listing


class Exposure:
    """Loads and anonymizes the photographs of an audit.

    Args:
        config: the audit.
        stages: runs and remembers the stages.
        announce: called with lines of progress.

    Attributes:
        notes: caveats for the report.
    """

    def __init__(
        self, config: AuditConfig, stages: Stages, announce: Callable[[str], None]
    ) -> None:
        self.config = config
        self.stages = stages
        self.announce = announce
        self.notes: list[str] = []
        self._background = any(
            BACKGROUND in rung.training_splits
            for rung in config.attack.values()
            if isinstance(rung, TrainedRung)
        )

    def check(self) -> None:
        """Find out before any work starts whether every anonymizer has what it needs.

        Raises:
            CldmrayError: a package or file is absent, or a file is incomplete or of a refused kind;
                the message begins with the anonymizer's key.
        """
        for key, member in self.config.anonymizer.items():
            try:
                member.check()
                hashing.describe(member)
            except CldmrayError as error:
                raise type(error)(f"anonymizer.{key}: {error}") from error

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
        if self._background:
            used.append(BACKGROUND)
        kept = listing.filter(pc.is_in(listing["split"], pa.array(used)))
        assert_disjoint(zip(kept["identity"].to_pylist(), kept["split"].to_pylist(), strict=True))
        people = Counter(splits.values())
        self.announce(
            f"{config.faces.name}: {listing.num_rows} photos of {len(splits)} people; "
            + ", ".join(f"{people[split]} {split}" for split in used)
        )
        self._audited(kept)
        self._refuse_trained({i for i, split in splits.items() if split == EVALUATION})
        if self._background:
            self._note_background({i for i, split in splits.items() if split == BACKGROUND})
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
        """Photographs of each person who is audited, by the columns ``identity`` and ``split``.

        Raises:
            BadInputError: there are fewer than two people, or no probe would ever have a reference.
        """
        rows = table.filter(pc.equal(table["split"], EVALUATION))
        photos = Counter(rows["identity"].to_pylist())
        if len(photos) < 2:
            who = f"only {next(iter(photos))!r} has" if photos else "nobody has"
            raise BadInputError(
                f"splits: of the people to be evaluated {who} a usable photograph, and a gallery "
                "needs at least two people who can be confused; evaluate more (splits.evaluation, "
                "splits.evaluation_people, splits.min_photos)"
            )
        needed = [name for name in self.config.audit.galleries if name != "source_included"]
        if needed and max(photos.values()) < 2:
            raise BadInputError(
                f"audit.galleries: {needed[0]} needs a second photograph of a person, and all "
                f"{len(photos)} people to be evaluated have one; add photographs, or measure "
                "source_included alone"
            )
        return photos

    def _note_background(self, background: set[str]) -> None:
        for member in self.config.anonymizer.values():
            known = member.trained_on()
            seen = sum(hashing.identity_hash(person) in known for person in background)
            if seen:
                self.notes.append(
                    f"{member.name} was trained on {seen} of the {len(background)} background "
                    "people from whom attackers learnt too (train_on_background): it may treat "
                    "them otherwise than the people who are audited."
                )

    def _refuse_trained(self, evaluated: set[str]) -> None:
        named: dict[str, tuple[str, frozenset[str]]] = {
            f"anonymizer.{key}": (member.name, member.trained_on())
            for key, member in self.config.anonymizer.items()
        }
        for key, rung in self.config.attack.items():
            inverter = rung.inverter if isinstance(rung, InversionRung) else None
            if isinstance(inverter, DiffusionInversion):
                named[f"attack.{key}"] = inverter.name, inverter.trained_on()
        for key, (name, known) in named.items():
            seen = sorted(person for person in evaluated if hashing.identity_hash(person) in known)
            if not seen:
                continue
            message = (
                f"{key}: {name} was trained on {len(seen)} of the "
                f"{len(evaluated)} people to be evaluated (one is {seen[0]!r})"
            )
            if not self.config.audit.allow_trained_identities:
                raise BadInputError(
                    f"{message}; evaluate other people (splits.evaluation, splits.min_photos), or "
                    "set audit.allow_trained_identities=true"
                )
            self.notes.append(f"{message}, which was allowed by audit.allow_trained_identities.")

    def faces(self, listing: pa.Table) -> StageTable:
        """The decoded photographs; stops where too many files are bad."""
        config = self.config
        table = self.stages.run(
            *self.faces_work(listing),
            lambda folder: load_faces(config.faces, listing, config.engine, folder),
        )
        bad = table.manifest.rejected
        if bad:
            self.announce(
                f"{bad} of {listing.num_rows} files cannot be used; the report lists them"
            )
        if bad > config.audit.max_bad_share * listing.num_rows:
            examples = table.rejected().slice(0, 3).to_pylist()
            reasons = "; ".join(f"{row['location']}: {row['reason']}" for row in examples)
            raise BadInputError(
                f"{bad} of {listing.num_rows} files cannot be used, more than "
                f"audit.max_bad_share={config.audit.max_bad_share:g} allows: {reasons} ... "
                f"(all in {table.folder}/rejected.parquet)"
            )
        photos = self._audited(table.read(["identity", "split"]))
        alone = sorted(person for person, count in photos.items() if count == 1)
        if alone:
            self.notes.append(
                f"{len(alone)} of the {len(photos)} evaluated people have one usable photograph "
                f"only (one is {alone[0]!r}): it stands in everybody's gallery, but is a probe "
                "only where the gallery includes the source."
            )
        return table

    def redraw(self, key: str, faces: StageTable) -> StageTable:
        """The anonymized pictures of one setting."""
        config = self.config
        member = config.anonymizer[key]
        work = self.redraw_work(key, faces.key)
        draws = self.draws

        def produce(folder: str) -> None:
            if isinstance(member, GroupAnonymizer):
                anonymize_groups(faces, member, draws, config.engine, folder)
            else:
                anonymize(faces, member, draws, config.audit.seed, config.engine, folder)

        return self.stages.run(*work, produce)

    @property
    def draws(self) -> dict[str, int]:
        """How often the pictures of each split are anonymized."""
        queried = any(rung.per_anonymizer for rung in self.config.attack.values())
        attacker_draws = self.config.audit.attacker_draws if queried else 0
        return evaluation_draws(attacker_draws, self._background)

    def faces_work(self, listing: pa.Table) -> Work:
        """The stage of the photographs."""
        rows = zip(
            *(listing[name].to_pylist() for name in ("sample_id", "version", "split")), strict=True
        )
        settings = {
            "source": self.config.faces,
            "listing": hashing.fingerprint_rows(map(repr, rows)),
        }
        return Work("faces", settings, [])

    def redraw_work(self, key: str, faces: str) -> Work:
        """The stage of one setting.

        Args:
            faces: key of the stage of the photographs.
        """
        member = self.config.anonymizer[key]
        settings = {"anonymizer": member, "draws": self.draws, "seed": self.config.audit.seed}
        return Work(f"anonymize-{member.name}", settings, [faces])

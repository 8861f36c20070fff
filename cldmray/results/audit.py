"""What a report is made from: plain dataclasses that a finished audit fills in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from cldmray.arrays import Images, Interval
from cldmray.results.attribution import Attribution
from cldmray.results.content import InferenceRow, Memorization, UntouchedFaces
from cldmray.results.decision import Gate, Recommendation
from cldmray.results.exposed import ExposedIdentity

Finding = Literal["leak", "inconclusive", "no_leak_found"]
Severity = Literal["leak", "leak_within_target", "inconclusive", "no_leak_found", "neutral"]
Release = Literal["yes", "no", "inconclusive"]
Ability = Literal["shown", "not_shown", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """The answer of the audit.

    Attributes:
        sentence: the answer in one sentence, for people.
        machine: the same for programs, JSON-able. Its key ``severity`` (``leak``,
            ``leak_within_target``, ``inconclusive`` or ``no_leak_found``) colours the report.
        recommendation: what may be released; None: not asked.
        gate: whether the job fails.
    """

    sentence: str
    machine: dict[str, Any]
    recommendation: Recommendation | None = None
    gate: Gate = field(default_factory=Gate)

    @property
    def record(self) -> dict[str, Any]:
        """``machine`` with the sentence, as in ``verdict.json``."""
        return {"sentence": self.sentence, **self.machine}

    @property
    def severity(self) -> Severity:
        """``machine["severity"]``; ``neutral`` where it is absent or unknown."""
        named: Severity
        for named in ("leak", "leak_within_target", "inconclusive", "no_leak_found"):
            if self.machine.get("severity") == named:
                return named
        return "neutral"


class AttackRate(NamedTuple):
    """One attack and its rank-1 identification rate in [0, 1].

    Attributes:
        attacker, protocol, gallery: which attack, as in docs/results_files.md.
        value: the rate.
        low, high: confidence bounds that hold for all attacks of one kind on the anonymizer at
            once.
        chance: its rate with the identities of the probes permuted.
        excess: the difference of the two, with simultaneous bounds; None: not measured.
    """

    attacker: str
    protocol: str
    gallery: str
    value: float
    low: float
    high: float
    chance: float
    excess: Interval | None = None

    @property
    def above_chance(self) -> bool:
        """Whether it identifies people significantly more often than chance."""
        return (self.low - self.chance if self.excess is None else self.excess.low) > 0


@dataclass(frozen=True)
class AnonymizerRisk:
    """The strongest attack on one anonymizer, and what follows from all attacks on it.

    All bounds hold for all attacks of one kind on the anonymizer at once: those that identify
    images, those that link them, those that identify people by all of their images. One rate has
    one interval.

    Attributes:
        anonymizer, attacker, protocol, gallery: which attack, as in
            docs/results_files.md.
        risk: its rank-1 identification rate, in [0, 1].
        low, high: confidence bounds of ``risk``, in [0, 1].
        chance: rank-1 rate of the same attack with the identities of the probes permuted, in
            [0, 1].
        k_not_rejected: largest k whose claim of k-anonymity the attack does not reject, >= 1.
        confidence_level: of the bounds, in (0, 1).
        gallery_size: number of candidate identities, >= 1.
        n_probes: images that the strongest attack was tried on; 0: not known.
        k_supported: largest k that the data support, >= 1: 1 / ``simultaneous_upper_bound``, and 1,
            which says nothing, where the attackers are too weak to conclude.
        note: what limits the conclusion that nothing leaks, such as "attacker too weak to
            conclude"; empty where an attack leaks.
        weakness: the same, also where an attack leaks: why the data support no k.
        highest_lower_bound: the attack with the highest lower bound, against which claims are
            tested; None: this one.
        highest_upper_bound: highest upper bound of all attacks of its kind, in [``high``, 1];
            None: ``high``.
        excess: ``risk`` less ``chance``, with bounds that hold for all attacks of the audit at
            once; None: not measured, ``low`` is compared with ``chance`` then.
        linkage: the attack that best links anonymized images of a person with each other, no
            original at hand; None where that was not measured.
        tested_linkage: that with the highest lower bound, against which a rate is tested; None
            likewise.
        cross_image: the strongest attack that holds other images of the person (gallery
            ``source_excluded``); None where that was not measured.
        same_image: the strongest that holds the very image (``source_included``); None likewise.
        person_level: the strongest on pooled images of each identity, source excluded; None
            likewise.
        is_control: whether it is there to show what the attackers can do.
        candidate: whether the verdict counts it among those that are meant to be released.
        release: whether it may be released; None: it is a control and no candidate.
        release_reason: why, in one plain sentence; empty where ``release`` is None.
        utility_kept: what is kept of the original, as the mean over the measures of utility of
            (value - chance) / (clean - chance): 0 is the image of a random other person, 1 the
            original; None where no measure has both references.
        keeps_nothing: whether that is not significantly above 0.

    >>> risk = AnonymizerRisk("blur", 0.30, 0.24, 0.36, "adaptive_contrastive", "full_ref",
    ...                       "source_excluded", 0.01, k_not_rejected=4, confidence_level=0.95,
    ...                       gallery_size=100)
    >>> risk.finding
    'leak'
    """

    anonymizer: str
    risk: float
    low: float
    high: float
    attacker: str
    protocol: str
    gallery: str
    chance: float
    k_not_rejected: int
    confidence_level: float
    gallery_size: int
    n_probes: int = 0
    k_supported: int = 1
    note: str = ""
    weakness: str = ""
    highest_lower_bound: AttackRate | None = None
    highest_upper_bound: float | None = None
    excess: Interval | None = None
    linkage: AttackRate | None = None
    tested_linkage: AttackRate | None = None
    cross_image: AttackRate | None = None
    same_image: AttackRate | None = None
    person_level: AttackRate | None = None
    is_control: bool = False
    candidate: bool = True
    release: Release | None = None
    release_reason: str = ""
    utility_kept: Interval | None = None
    keeps_nothing: bool = False

    @property
    def strongest_attack(self) -> AttackRate:
        """The attack whose rate is the risk."""
        where = self.attacker, self.protocol, self.gallery
        return AttackRate(*where, self.risk, self.low, self.high, self.chance, self.excess)

    @property
    def is_mere_control(self) -> bool:
        """Whether it is a control of which no answer is given: ``audit.release`` omits it."""
        return self.is_control and self.release is None

    @property
    def shown_attack(self) -> AttackRate:
        """The strongest attack that has another image of the person; else the strongest of all."""
        return self.cross_image or self.strongest_attack

    @property
    def attacks_by_gallery(self) -> list[AttackRate]:
        """The shown attack, and the strongest of each further gallery."""
        attacks = (self.shown_attack, self.same_image, self.linkage)
        return [attack for attack in attacks if attack is not None]

    @property
    def tested_attack(self) -> AttackRate:
        """The attack against which claims of k-anonymity are tested."""
        return self.highest_lower_bound or self.strongest_attack

    @property
    def unstated_note(self) -> str:
        """``note``, unless ``release_reason`` says the same, where it begins with a capital."""
        return "" if self.note.lower() in self.release_reason.lower() else self.note

    @property
    def only_linked(self) -> bool:
        """Whether no attacker held an original: the risk is that of linkage."""
        return self.gallery == "anonymized_only"

    @property
    def linking_attacks(self) -> tuple[AttackRate, AttackRate] | None:
        """The best linkage, and the one with the highest lower bound; None: not measured.

        Where nothing but linkage was measured, they are those of the risk.
        """
        if self.only_linked:
            return self.strongest_attack, self.tested_attack
        return None if self.linkage is None else (self.linkage, self.tested_linkage or self.linkage)

    @property
    def simultaneous_upper_bound(self) -> float:
        """The most that any attack leaves possible, in [0, 1]."""
        return self.high if self.highest_upper_bound is None else self.highest_upper_bound

    @property
    def finding(self) -> Finding:
        """``leak`` where an attack on single images is significantly above chance; a note
        withholds the others."""
        if self.strongest_attack.above_chance:
            return "leak"
        return "inconclusive" if self.note else "no_leak_found"

    @property
    def leaks(self) -> bool:
        """Whether an attack, on single images or on all of a person, is above chance."""
        pooled = self.person_level
        return self.finding == "leak" or (pooled is not None and pooled.above_chance)


class AttackerDiagnostics(NamedTuple):
    """How good one attacker was where it should be good, and whether it had learnt enough.

    Attributes:
        anonymizer, attacker: as in docs/results_files.md.
        clean_rank_1: rank-1 rate of its own encoder on clean images, in [0, 1]; None where that
            says nothing.
        n_trainings: how often it was trained, each time with another seed; 0: it learns nothing.
        n_steps: of one training.
        validation_rank_1: rate on validation identities at the end, in [0, 1]; None: not measured.
        final_gain: what the last quarter of the steps added to it; None: not measured.
        untrained_rank_1: ``validation_rank_1`` before the first step; None: not measured.
        n_validation_identities: behind both; 0: not known.
        learns_from_anonymized: whether it can query the anonymizer.
        ability: ``shown`` where it counts that this attacker finds nothing, ``not_shown`` where it
            is too weak to conclude, ``unknown`` where there is no measure of it; see
            :mod:`cldmray.evaluation.diagnostics`.
    """

    anonymizer: str
    attacker: str
    clean_rank_1: float | None
    n_trainings: int
    n_steps: int
    validation_rank_1: float | None
    final_gain: float | None
    untrained_rank_1: float | None = None
    n_validation_identities: int = 0
    learns_from_anonymized: bool = False
    ability: Ability = "unknown"


@dataclass(frozen=True)
class UtilityRow:
    """How useful one anonymizer's images still are, by one measure.

    Attributes:
        anonymizer: its name in tables.
        measure: ``ssim``, ``edge_f1``, ``face_detection_rate``, ``pose_consistency``,
            ``<attribute>_agreement`` or ``frechet_<features>``; see
            :mod:`cldmray.pipelines.utility`.
        value: the measure, with confidence bounds ``low`` and ``high`` over identities.
        n_images: images that were measured.
        higher_is_better: which direction is more useful.
        clean: what clean images reach, where that is measured.
        chance: what needs no look at the original: the image of another person for ``ssim``
            and ``edge_f1``, the most frequent class for agreements; None where there is no such.
    """

    anonymizer: str
    measure: str
    value: float
    low: float
    high: float
    n_images: int
    higher_is_better: bool
    clean: float | None = None
    chance: float | None = None


@dataclass(frozen=True)
class CmcCurve:
    """One cumulative match characteristic; ``rates`` and ``chance`` in [0, 1] at ``ranks``."""

    anonymizer: str
    attacker: str
    protocol: str
    gallery: str
    ranks: list[int]
    rates: list[float]
    chance: list[float]


class DetCurve(NamedTuple):
    """Detection error trade-off of one attack: misses over false alarms.

    Attributes:
        anonymizer, attacker, protocol, gallery: which attack, as in docs/results_files.md.
        kind: one image with one person (``verification``: FNMR over FMR), or with all enrolled
            people, of whom some probes are none (``open_set``: FNIR over FPIR).
        false_alarms: rates in [0, 1], rising; only those that the comparisons support.
        misses: least rate in [0, 1] at each of them.
    """

    anonymizer: str
    attacker: str
    protocol: str
    gallery: str
    kind: Literal["verification", "open_set"]
    false_alarms: list[float]
    misses: list[float]


class LearningCurve(NamedTuple):
    """How one training of an attacker went.

    Attributes:
        anonymizer, attacker: as in :mod:`cldmray.results.schema`.
        training: 0, 1, ...: which one of several.
        steps: at which it was validated, rising.
        validation_rank_1: rank-1 rate on validation identities at these steps, in [0, 1]; None
            where no validation identity has a second image.
    """

    anonymizer: str
    attacker: str
    training: int
    steps: list[int]
    validation_rank_1: list[float | None]


class DataSummary(NamedTuple):
    """Whose images were audited.

    Attributes:
        name: of the source.
        synthetic: whether its people are rendered or generated and nobody's face is shown.
        n_identities, n_images: that are attacked.
        n_attacker_identities: other people, from whom attackers may learn.
        n_auxiliary_identities: other people, on whom anonymizers may be trained.
    """

    name: str
    synthetic: bool
    n_identities: int
    n_images: int
    n_attacker_identities: int
    n_auxiliary_identities: int


@dataclass(frozen=True)
class GridRow:
    """Example images of one anonymizer; image i shows the same sample as original i.

    Attributes:
        condition: what the anonymizer was given, shape (N, H, W, 3), or None if nothing.
        anonymized: what it returned, shape (N, H, W, 3).
    """

    anonymizer: str
    condition: Images | None
    anonymized: Images


@dataclass(frozen=True)
class Grid:
    """Example images: N originals, shape (N, H, W, 3), and what became of them."""

    originals: Images
    rows: list[GridRow]


@dataclass(frozen=True)
class Evidence:
    """Whom the strongest attack takes one anonymized image for.

    Attributes:
        anonymizer, attacker: whose images, and who attacks them.
        protocol, gallery: what the attacker holds.
        anonymized: the image, shape (H, W, 3).
        original: what it was made from, shape (H, W, 3).
        matches: the best reference of each of the k best identities, best first, shape
            (k, H, W, 3).
        mated: whether each of these shows the image's own person.
        scores: of the matches, descending.
        rank: of the image's own person, 1: identified.
        margin: score of the own person minus that of the best other one; negative: not identified.
    """

    anonymizer: str
    attacker: str
    protocol: str
    gallery: str
    anonymized: Images
    original: Images
    matches: Images
    mated: tuple[bool, ...]
    scores: tuple[float, ...]
    rank: int
    margin: float


class StageRecord(NamedTuple):
    """One stage of the run: wall time in seconds, rows written, whether an old result served."""

    name: str
    seconds: float
    rows: int
    reused: bool


@dataclass(frozen=True)
class AuditReport:
    """Everything that is shown about a finished audit.

    Attributes:
        title: name of the audit.
        created: ISO 8601 time.
        verdict: the answer.
        risks: one entry per anonymizer, its strongest attack.
        results: all measures, schema :data:`cldmray.results.table.RESULTS`.
        curves: CMC curves; the figure shows those of the strongest attacks that have
            another image of the person.
        det: detection error trade-off of the same attacks; may be empty.
        grid: example images; zero originals leave the section out.
        rejected: files that were not audited, schema :data:`cldmray.faces.records.REJECTED`.
        n_listed: files that the source offered, rejected ones included.
        settings: nested configuration; values under secret-looking keys are masked.
        versions: package name to version.
        stages: in order of execution.
        notes: caveats for the reader, one sentence each.
        data_fingerprint: hash of the audited data; may be empty.
        utility: how useful each anonymizer's images still are; may be empty.
        diagnostics: of the attackers; may be empty.
        attribution: what carries the leak; None leaves the section out.
        exposed: how many attackers identify each image, schema
            :data:`cldmray.results.exposed.EXPOSED`; None where nothing was attacked.
        exposed_identities: of every anonymizer and gallery, the most exposed first; may be empty.
        untouched: faces that an anonymizer has left as they were, the anonymizer that has left
            most of them first.
        evidence: best matches of images of anonymizers that leak; may be empty.
        data: whose images were audited; None: unknown.
        learning: curves of all trainings of the attackers; may be empty.
        command: that makes the same audit again; empty where it was started otherwise.
        mlflow: where the audit is recorded; empty: nowhere.
        inference: attributes that a classifier reads from anonymized images; empty where the source
            knows none.
        memorization: of each anonymizer, the share of its images that lie next to images it was
            trained on; empty where these are unknown.
    """

    title: str
    created: str
    verdict: Verdict
    risks: list[AnonymizerRisk]
    results: pa.Table
    curves: list[CmcCurve]
    grid: Grid
    rejected: pa.Table
    n_listed: int
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    stages: list[StageRecord]
    notes: list[str]
    data_fingerprint: str = ""
    utility: list[UtilityRow] = field(default_factory=list)
    diagnostics: list[AttackerDiagnostics] = field(default_factory=list)
    attribution: Attribution | None = None
    evidence: list[Evidence] = field(default_factory=list)
    exposed: pa.Table | None = None
    exposed_identities: list[ExposedIdentity] = field(default_factory=list)
    untouched: list[UntouchedFaces] = field(default_factory=list)
    data: DataSummary | None = None
    learning: list[LearningCurve] = field(default_factory=list)
    command: str = ""
    mlflow: str = ""
    inference: list[InferenceRow] = field(default_factory=list)
    det: list[DetCurve] = field(default_factory=list)
    memorization: list[Memorization] = field(default_factory=list)

    @property
    def ranked_risks(self) -> list[AnonymizerRisk]:
        """The risks, highest first."""
        return sorted(self.risks, key=lambda risk: (-risk.risk, risk.anonymizer))

    def strongest_curves(self) -> list[CmcCurve]:
        """The curves of each :attr:`AnonymizerRisk.shown_attack`, the highest risk first."""
        by_attack = {
            (curve.anonymizer, curve.attacker, curve.protocol, curve.gallery): curve
            for curve in self.curves
        }
        keys = [(risk.anonymizer, *risk.shown_attack[:3]) for risk in self.ranked_risks]
        return [by_attack[key] for key in keys if key in by_attack]

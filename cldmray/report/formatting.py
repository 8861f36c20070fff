"""Numbers, names and risks as a reader of the report sees them."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cldmray.arrays import Interval
from cldmray.errors import redact
from cldmray.results.attribution import AttributionRow, Question
from cldmray.results.audit import Ability, AnonymizerRisk, Finding, Severity

SEVERITY_LABELS: dict[Severity, str] = {
    "leak": "Identity leaks",
    "leak_within_target": "Leaks within the target",
    "inconclusive": "Inconclusive",
    "no_leak_found": "No leak found",
    "neutral": "Verdict",
}

GATE_LABELS = {"none": "No gate", "passed": "Gate passed", "failed": "Gate failed"}

FINDING_LABELS: dict[Finding, str] = {
    "leak": "Above chance",
    "inconclusive": "Inconclusive",
    "no_leak_found": "Not above chance",
}

PROTOCOLS = {"full_ref": "Full-Ref", "few_ref": "Few-Ref", "single_ref": "Single-Ref"}

GALLERIES = {
    "source_excluded": "another image of the person",
    "source_included": "the very image",
    "anonymized_only": "other anonymized images only",
}
"""What the attacker holds, in each gallery."""


class AttackerWords(NamedTuple):
    """A shipped attacker in the words of somebody who decides on a release.

    Attributes:
        title: of a column.
        subject: of a sentence.
        knowledge: what it knows and does.
    """

    title: str
    subject: str
    knowledge: str


ATTACKERS = {
    "pretrained": AttackerWords(
        "pretrained recognizer",
        "a public face recognizer",
        "knows nothing of the anonymizer; takes a public face recognizer as it is",
    ),
    "clean_trained": AttackerWords(
        "clean-trained encoder",
        "a recognizer trained on clean images",
        "has clean images of other people; learns to recognise faces from them",
    ),
    "condition_only": AttackerWords(
        "condition only",
        "an attacker who knows only the kind of condition",
        "knows which kind of condition is used; learns from pairs of image and condition map of "
        "other people",
    ),
    "condition_match": AttackerWords(
        "condition match",
        "an attacker who compares condition maps",
        "can extract condition maps, such as edges; compares them, learns nothing",
    ),
    "adaptive_contrastive": AttackerWords(
        "adaptive, contrastive",
        "an adaptive attacker",
        "can send images of other people through the anonymizer; learns from pairs of image and "
        "anonymized image",
    ),
    "adaptive_distilled": AttackerWords(
        "adaptive, distilled",
        "an adaptive attacker taught by a public recognizer",
        "can query the anonymizer as well, and has a public recognizer as teacher",
    ),
    "condition_only_distilled": AttackerWords(
        "condition only, distilled",
        "an attacker who knows only the kind of condition, taught by a public recognizer",
        "knows the kind of condition, and has a public recognizer as teacher",
    ),
    "adaptive_condition": AttackerWords(
        "adaptive, conditions only",
        "an adaptive attacker who looks at condition maps only",
        "can query the anonymizer; looks at condition maps only",
    ),
    "score_fusion": AttackerWords(
        "score fusion",
        "an attacker who combines the others",
        "has the scores of the others; adds them by a rule fitted on other people",
    ),
    "album": AttackerWords(
        "album",
        "an attacker who pools a person's images",
        "knows, or finds out, which anonymized images show one person; pools them",
    ),
    "reconstruction": AttackerWords(
        "reconstruction",
        "an attacker who reconstructs the originals",
        "can query the anonymizer; learns to reconstruct the original, which a held-out recognizer "
        "identifies",
    ),
}
"""The shipped attackers by their names in tables, which stay as identifiers beside the words."""

ABILITY_LABELS: dict[Ability, str] = {
    "shown": "shown",
    "not_shown": "too weak to conclude",
    "unknown": "not known",
}
"""Whether it counts that an attacker finds nothing."""

RELEASE_LABELS = {"yes": "yes", "no": "no", "inconclusive": "inconclusive", None: "control"}
RELEASE_SEVERITIES: dict[str | None, Severity] = {
    "yes": "no_leak_found",
    "no": "leak",
    "inconclusive": "inconclusive",
    None: "neutral",
}
"""Answers to "may it be released?", and their colours."""

MEASURES = {
    "rank_1_difference": "difference of the rank-1 rates",
    "rank_1_by_seed": "rank-1, lowest to highest training",
    "k_not_rejected": "largest k not rejected (lower bound: largest k supported)",
    "k_point_estimate": "1 / rank-1",
    "p10_rank": "rank, lowest tenth",
    "median_rank_by_identity": "median rank over people",
    "p10_rank_by_identity": "rank over people, lowest tenth",
    "rank_1_shuffled": "rank-1, permuted",
    "mean_reciprocal_rank": "mean reciprocal rank",
    "mean_rank": "mean rank",
    "median_rank": "median rank",
    "eer": "EER",
    "d_sys": "D_sys (linkage)",
}
RANK_MEASURE = re.compile(r"rank_(\d+)")
RANK_AT_GALLERY = re.compile(r"rank_1_at_gallery_(\d+)")
PRECISION_AT = re.compile(r"precision_top_(\d+)pct")
RATE_AT = re.compile(r"(tmr|fnir)_at_(fmr|fpir)_(.+)")


def percent(rate: float) -> str:
    """A rate in [0, 1] as a percentage: one decimal, two below 1 %.

    >>> percent(0.1243), percent(0.0083)
    ('12.4 %', '0.83 %')
    """
    return f"{100 * rate:.2f} %" if 0 < rate < 0.01 else f"{100 * rate:.1f} %"


def points(gain: Interval) -> str:
    """A difference of rates in percentage points: ``+3.1 [1.0, 5.2]``."""
    return f"{100 * gain.value:+.1f} [{100 * gain.low:.1f}, {100 * gain.high:.1f}]"


def number(value: float | None) -> str:
    """A measure with four significant digits; what lies behind the sixth decimal is rounding.

    Values of 10,000 and above are whole numbers.

    >>> number(0.20963), number(2.22e-16), number(None), number(123456.4)
    ('0.2096', '0', '-', '123456')
    """
    if value is None:
        return "-"
    text = f"{round(value, 6):.4g}"
    return f"{value:.0f}" if "e+" in text else text


def levels(risks: Sequence[AnonymizerRisk]) -> str:
    """The confidence levels in use, usually one: ``95 %``."""
    return " / ".join(
        f"{100 * confidence_level:g} %"
        for confidence_level in sorted({risk.confidence_level for risk in risks})
    )


def protocol_name(protocol: str) -> str:
    """``full_ref`` as ``Full-Ref``; an unknown protocol as it is.

    >>> protocol_name("few_ref")
    'Few-Ref'
    """
    return PROTOCOLS.get(protocol, protocol)


def gallery_name(gallery: str) -> str:
    """``source_excluded`` as ``source excluded``.

    >>> gallery_name("anonymized_only")
    'anonymized only'
    """
    return gallery.replace("_", " ")


def attacker_name(attacker: str) -> str:
    """An attacker in plain words; one that is not shipped, or has a label, as it is.

    >>> attacker_name("adaptive_contrastive"), attacker_name("mine-2")
    ('adaptive, contrastive', 'mine-2')
    """
    return ATTACKERS[attacker].title if attacker in ATTACKERS else attacker


def attacker_subject(attacker: str) -> str:
    """An attacker as subject of a sentence, its name in tables behind it.

    >>> attacker_subject("adaptive_contrastive"), attacker_subject("mine-2")
    ('an adaptive attacker (adaptive_contrastive)', 'the attacker mine-2')
    """
    if attacker not in ATTACKERS:
        return f"the attacker {attacker}"
    return f"{ATTACKERS[attacker].subject} ({attacker})"


def sentence_case(text: str) -> str:
    """A text with a capital letter in front, the rest as it is.

    >>> sentence_case("an LDM")
    'An LDM'
    """
    return text[:1].upper() + text[1:]


def held_name(gallery: str) -> str:
    """What the attacker holds in a gallery, in plain words; an unknown gallery as it is.

    >>> held_name("source_included")
    'the very image'
    """
    return GALLERIES.get(gallery, gallery)


def rejected_k(risk: AnonymizerRisk) -> str:
    """Which claims of k-anonymity an audit rejects: ``above 10 rejected``, all or none of them."""
    if risk.k_not_rejected == 1:
        return "every k rejected"
    if risk.k_not_rejected >= risk.gallery_size:
        return "none rejected"
    return f"above {risk.k_not_rejected} rejected"


def subset_name(subset: str, measure: str = "rank_1") -> str:
    """The people or the part of the images that a row is of, in plain words.

    >>> subset_name("skin_tone=II"), subset_name("sex=f|within")
    ('skin tone: II', 'sex: f, impostors of the same group')
    >>> subset_name("sex=f-m", "rank_1_difference")
    'sex: f less m'
    """
    name, is_group, rest = subset.partition("=")
    if not is_group:
        return subset
    value, _, within = rest.partition("|")
    if measure == "rank_1_difference":
        value = " less ".join(value.split("-", 1)) if value.count("-") == 1 else value
    among = ", impostors of the same group" if within else ""
    return f"{name.replace('_', ' ')}: {value}{among}"


def measure_name(measure: str) -> str:
    """A measure of identification as a reader knows it; one that is not known as it is.

    >>> measure_name("rank_5"), measure_name("tmr_at_fmr_1e-3"), measure_name("mine")
    ('rank-5', 'TMR at FMR 0.1 %', 'mine')
    """
    if rank := RANK_MEASURE.fullmatch(measure):
        return f"rank-{rank[1]}"
    if size := RANK_AT_GALLERY.fullmatch(measure):
        return f"rank-1 among {int(size[1]):,} people"
    if share := PRECISION_AT.fullmatch(measure):
        return f"precision of the most confident {share[1]} %"
    if point := RATE_AT.fullmatch(measure):
        try:
            return f"{point[1].upper()} at {point[2].upper()} {100 * float(point[3]):g} %"
        except ValueError:
            return measure
    return MEASURES.get(measure, measure)


QUESTION_LABELS: dict[Question, str] = {
    "swap": "Condition of one person, starting image of another: whom do attackers identify?",
    "ablation": "With and without the condition",
    "scale": "From one control scale to the next",
    "proxy": "The condition alone against the whole anonymizer",
    "region": "The face, or its surroundings, by itself",
    "operating_point": "How loose may an anonymizer be?",
}

ATTRIBUTION_MEASURES = {
    "rank_1": "rank-1 identification rate",
    "rank_1_condition": "the condition's person identified",
    "rank_1_start": "the starting image's person identified",
    "rank_1_either": "either of them identified",
    "condition_share": "share that is the condition's person, chance taken off",
    "rank_1_difference": "difference of the rates",
    "carried_share": "share of the rate that goes with the condition",
    "proxy_share": "ratio of the rates",
}


def measured(row: AttributionRow) -> str:
    """Value and bounds of a row of an attribution, as percentages; else why there is none."""
    if row.reason:
        return row.reason
    if row.measure not in ATTRIBUTION_MEASURES:
        return f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
    low, high = (
        "none" if math.isinf(bound) else f"{100 * bound:.1f}" for bound in (row.low, row.high)
    )
    return f"{100 * row.value:.1f} % [{low}, {high}]"


def duration(seconds: float) -> str:
    """A duration as a reader says it.

    >>> duration(0.42), duration(200), duration(3900)
    ('0.4 s', '3 min 20 s', '1 h 5 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def mlflow_page(record: str) -> str | None:
    """Address of a run's page; None where no server shows it.

    Args:
        record: ``<URI>, run <id>``, as in :class:`~cldmray.results.audit.AuditReport`.

    >>> mlflow_page("https://***@host:5000/, run 1f")
    'https://host:5000/#/runs/1f'
    >>> mlflow_page("sqlite:///mlflow.db, run 1f")
    """
    uri, _, run = record.replace("://***@", "://").partition(", run ")
    return f"{uri.rstrip('/')}/#/runs/{run}" if uri.startswith(("http://", "https://")) else None


def flatten(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Nested settings as (dotted key, text) pairs in their order, secrets masked.

    >>> flatten({"hub": {"token": "abc"}, "sizes": [64, 128]})
    [('hub.token', '***'), ('sizes.0', '64'), ('sizes.1', '128')]

    Args:
        settings: mappings and sequences down to scalars; see :func:`cldmray.errors.redact` for
            what is masked.
    """
    return list(_pairs("", redact(settings)))


def _pairs(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """The leaves below one key; an empty mapping or list is a leaf."""
    if isinstance(value, Mapping) and value:
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list) and value:
        items = enumerate(value)
    else:
        yield name, str(value)
        return
    for key, item in items:
        yield from _pairs(f"{name}.{key}" if name else str(key), item)

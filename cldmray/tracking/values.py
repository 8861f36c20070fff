"""How settings, metrics and tags are called and written in MLflow, the same in every run."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cldmray.errors import HIDDEN, BadInputError, is_secret_key, redact, redact_text
from cldmray.results.table import ALL, IMAGE_LEVEL

LONGEST_VALUE = 500
LONGEST_KEY = 250
LONGEST_SUBSET = 100
FORBIDDEN_IN_KEY = re.compile(r"[^\w\-. ]", re.ASCII)
BOUNDS = ("ci_low", "ci_high", "chance")
COUNTS = ("n_probes", "n_identities", "gallery_size")


def metric_name(protocol: str, gallery: str, measure: str, subset: str = ALL) -> str:
    """Name of a metric: ``full_ref/source_excluded/rank_1``.

    A subset stands at its end, in characters that MLflow accepts: ``sex=female`` as
    ``full_ref/source_excluded/rank_1/sex-female``, others with a hash that keeps them apart.

    >>> metric_name("full_ref", "source_excluded", "rank_1", "sex=female")
    'full_ref/source_excluded/rank_1/sex-female'
    """
    name = f"{protocol}/{gallery}/{measure}"
    if subset == ALL:
        return name
    readable = subset.replace("=", "-", 1)
    ending = FORBIDDEN_IN_KEY.sub("_", readable)
    if ending != readable:
        ending = f"{ending}-{_short_hash(subset)[:8]}"
    return f"{name}/{shortened(ending, LONGEST_SUBSET)}"


def result_metrics(results: pa.Table) -> dict[str, float]:
    """Metrics of one anonymizer under one attacker.

    Args:
        results: rows of ``results.table.RESULTS``.

    Returns:
        For each row of images ``name``, ``name_ci_low``, ``name_ci_high`` and ``name_chance``, as
        far as they are measured, and for each protocol, gallery and subset ``n_probes``,
        ``n_identities`` and ``gallery_size``.

    Raises:
        BadInputError: a measure is there twice, as with rows of several attackers.
    """
    metrics: dict[str, float] = {}
    for row in results.filter(pc.equal(results["level"], IMAGE_LEVEL)).to_pylist():
        names = {
            part: metric_name(row["protocol"], row["gallery"], part, row["subset"])
            for part in (row["measure"], *(f"{row['measure']}_{end}" for end in BOUNDS), *COUNTS)
        }
        name = names[row["measure"]]
        if name in metrics:
            raise BadInputError(f"results: {name} is there more than once for one run")
        numbers = {name: row["value"]}
        numbers |= {names[f"{row['measure']}_{end}"]: row[end] for end in BOUNDS}
        metrics |= {name: number for name, number in numbers.items() if number is not None}
        for count in COUNTS:
            metrics[names[count]] = float(row[count])
    return metrics


def flat_params(settings: Mapping[str, Any]) -> dict[str, str]:
    """Nested settings as one text per dotted key, without secrets.

    Lists become JSON; values longer than 500 characters are cut and end with their hash, so that
    two different ones still differ.

    >>> flat_params({"faces": {"name": "lfw"}, "hub": {"token": "secret"}})
    {'faces.name': 'lfw', 'hub.token': '***'}
    """
    flat: dict[str, str] = {}
    _flatten(redact(settings), "", flat)
    return flat


def flat_tags(tags: Mapping[str, object]) -> dict[str, str]:
    """Tags as short texts without secrets."""
    return {
        clean_key(key): HIDDEN if is_secret_key(key) else shortened(redact_text(str(value)))
        for key, value in tags.items()
    }


def clean_key(key: str) -> str:
    """A key with the characters and the length that MLflow accepts, and without secrets."""
    return shortened(FORBIDDEN_IN_KEY.sub("_", redact_text(key)), LONGEST_KEY)


def clean_metric(name: str) -> str:
    """A metric's name as MLflow accepts it: the parts between slashes as :func:`clean_key`."""
    return "/".join(clean_key(part) for part in name.split("/"))


def shortened(text: str, longest: int = LONGEST_VALUE) -> str:
    """Text of at most ``longest`` characters; a longer one is cut and ends with its hash."""
    if len(text) <= longest:
        return text
    ending = f"...{_short_hash(text)}"
    return text[: longest - len(ending)] + ending


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _flatten(value: Any, key: str, flat: dict[str, str]) -> None:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            _flatten(item, f"{key}.{name}" if key else str(name), flat)
    if not key or (isinstance(value, Mapping) and value):
        return
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    flat[clean_key(key)] = shortened(text)

import re

import pyarrow as pa
import pytest

from cldmray.errors import BadInputError
from cldmray.results.table import RESULTS
from cldmray.tracking.values import (
    clean_key,
    clean_metric,
    flat_params,
    flat_tags,
    metric_name,
    result_metrics,
    shortened,
)

ROW = {
    "anonymizer": "no_op",
    "attacker": "adaptive_contrastive",
    "protocol": "full_ref",
    "gallery": "source_excluded",
    "level": "image",
    "subset": "all",
    "measure": "rank_1",
    "value": 0.7,
    "ci_low": 0.6,
    "ci_high": 0.8,
    "n_probes": 120,
    "n_identities": 40,
    "gallery_size": 400,
    "n_non_mated": 0,
    "reason": None,
    "chance": 0.025,
}


def test_metric_names() -> None:
    assert metric_name("full_ref", "source_excluded", "rank_1") == "full_ref/source_excluded/rank_1"


@pytest.mark.parametrize(
    ("subset", "ending"),
    [
        ("all", ""),
        ("sex=female", "/sex-female"),
        ("region=face", "/region-face"),
        ("skin tone=III", "/skin tone-III"),
        ("age=50+", "/age-50_-[0-9a-f]{8}"),
        ("haar=größer/blau", "/haar-gr__er_blau-[0-9a-f]{8}"),
        ("group=" + "x" * 300, "/group-x{75}[.]{3}[0-9a-f]{16}"),
    ],
)
def test_metric_names_of_subsets(subset: str, ending: str) -> None:
    name = metric_name("full_ref", "source_excluded", "rank_1", subset)
    assert re.fullmatch(f"full_ref/source_excluded/rank_1{ending}", name)
    assert re.fullmatch(r"[A-Za-z0-9_\-. /]{1,250}", name)


def test_subsets_that_look_alike_stay_apart() -> None:
    rows = [{**ROW, "subset": subset} for subset in ("all", "age=50+", "age=50_", "age=50-")]
    metrics = result_metrics(pa.Table.from_pylist(rows, RESULTS))
    assert len(metrics) == 4 * 7
    assert metrics["full_ref/source_excluded/n_probes/age-50-"] == 120
    assert metrics["full_ref/source_excluded/rank_1_ci_low/age-50_"] == 0.6


def test_metric_names_that_mlflow_would_refuse() -> None:
    assert clean_metric("risk/cldm-canny-1.0+depth-0.7") == "risk/cldm-canny-1.0_depth-0.7"
    assert clean_metric("a/b c_1.0-x") == "a/b c_1.0-x"


def test_results_become_metrics() -> None:
    rows = [ROW, {**ROW, "measure": "tmr_at_fmr_1e-3", "value": 0.1}]
    metrics = result_metrics(pa.Table.from_pylist(rows, RESULTS))
    base = "full_ref/source_excluded"
    assert metrics[f"{base}/rank_1"] == 0.7
    assert metrics[f"{base}/rank_1_ci_low"] == 0.6
    assert metrics[f"{base}/rank_1_ci_high"] == 0.8
    assert metrics[f"{base}/rank_1_chance"] == 0.025
    assert metrics[f"{base}/tmr_at_fmr_1e-3"] == 0.1
    assert metrics[f"{base}/n_probes"] == 120
    assert metrics[f"{base}/n_identities"] == 40
    assert metrics[f"{base}/gallery_size"] == 400
    assert len(metrics) == 11


def test_what_was_not_measured_is_no_metric_and_pooled_images_have_none_yet() -> None:
    empty = dict.fromkeys(("value", "ci_low", "ci_high"), None)
    rows = [{**ROW, **empty, "reason": "too few scores"}, {**ROW, "level": "person"}]
    metrics = result_metrics(pa.Table.from_pylist(rows, RESULTS))
    assert sorted(name.rsplit("/")[-1] for name in metrics) == [
        "gallery_size", "n_identities", "n_probes", "rank_1_chance",
    ]  # fmt: skip


def test_rows_of_two_attackers_do_not_overwrite_each_other() -> None:
    rows = pa.Table.from_pylist([ROW, {**ROW, "attacker": "score_fusion"}], RESULTS)
    with pytest.raises(BadInputError, match="full_ref/source_excluded/rank_1 is there more than"):
        result_metrics(rows)


def test_params_are_flat_short_and_without_secrets() -> None:
    settings = {
        "faces": {"name": "lfw", "crop": [1, 2], "root": None},
        "anonymizers": {"cldm-canny-1.0+depth-0.7": {"scale": 0.5}},
        "empty": {},
        "hub": {"token": "abc"},
        "uri": "http://me:pw@host",
    }
    assert flat_params(settings) == {
        "faces.name": "lfw",
        "faces.crop": "[1, 2]",
        "faces.root": "null",
        "anonymizers.cldm-canny-1.0_depth-0.7.scale": "0.5",
        "empty": "{}",
        "hub.token": "***",
        "uri": "http://***@host",
    }
    assert flat_params({}) == {}


def test_long_values_are_cut_and_still_differ() -> None:
    long, other = "a" * 501, "a" * 502
    assert len(shortened(long)) == 500
    assert shortened(long) != shortened(other)
    assert shortened("a" * 500) == "a" * 500
    assert len(clean_key("k" * 300)) == 250


def test_tags_are_freed_of_secrets() -> None:
    assert flat_tags({"api_key": "x", "note": "at http://a:b@c", "n": 3}) == {
        "api_key": "***",
        "note": "at http://***@c",
        "n": "3",
    }

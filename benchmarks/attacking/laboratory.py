"""One recipe of the laboratory: trains its students once, scores them, and counts who is found."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from attacking.cache import CachedImages, kept
from attacking.regression import Regression
from cldmray.arrays import Images, Interval
from cldmray.attackers.base import TrainingFreeAttacker
from cldmray.attackers.distilled import AdaptiveDistilled, DistilledAttacker
from cldmray.attackers.encoder_attacker import EncoderAttacker
from cldmray.attackers.nn.encoder import SFaceEncoder
from cldmray.attackers.nn.encoder_training import EncoderTrainable
from cldmray.attackers.nn.objectives import identity_means
from cldmray.attackers.nn.pairs import PairSet
from cldmray.attackers.nn.training import TrainingConfig, TrainingLoop, on_cpu
from cldmray.attackers.score_fusion import fit_weights
from cldmray.gallery.albums import AlbumScores, LinkedScores
from cldmray.gallery.chance import measured_chance
from cldmray.gallery.ranking import rank_scores
from cldmray.gallery.score_fusion import normalized
from cldmray.gallery.scores import ScoreBlock, Scores
from cldmray.hashing import digest
from cldmray.metrics.confidence import bootstrap_mean
from cldmray.metrics.identification import success_at_rank
from cldmray.metrics.rates import rate_interval
from cldmray.recognizers.base import Embeddings, Recognizer

Template = Literal["best", "mean", "both"]
Cohort = Literal["none", "attacker", "release"]
Target = Literal["mixed", "source", "identity"]
Floats = npt.NDArray[np.float64]
PENALTY = 0.01
"""Of the weights of a fusion, as in the product."""


@dataclass(frozen=True)
class Student:
    """An encoder attacker, and what it learns from.

    Attributes:
        attacker: of the product, with its encoder and training, or a regression.
        samples: anonymized images of each original that it learns from.
        target: what a teacher's student is to reach for an image: its person's mean embedding and
            the embedding of some image of that person in equal shares (``mixed``, the product's),
            the embedding of the very original (``source``), or the mean (``identity``).
        pairs: of original and anonymized image to learn from, drawn at random; None: all. 0 leaves
            the network untrained.
        permuted: whether each image is said to show a person drawn at random: a control.
    """

    attacker: EncoderAttacker | Regression
    samples: int = 1
    target: Target = "mixed"
    pairs: int | None = None
    permuted: bool = False


@dataclass(frozen=True)
class Recipe:
    """What the attacker does.

    Attributes:
        about: the recipe in words.
        students: encoders whose embeddings of a probe are averaged; they share a teacher.
        beside: training-free attackers whose scores are added.
        template: an identity scores by its best reference, by the mean embedding of its references,
            or by the sum of both.
        mirrored: whether the teacher's embeddings of references are those of an image and its
            mirror image summed; students' always are.
        cohort: whose scores with an identity have their mean and deviation taken off (z-norm):
            nobody's, those of attacker people's anonymized images, or those of all released ones.
        probe_samples: anonymized images of each original that are released.
        n_links: images that are linked with each at most, and pooled, as by the attacker ``album``.
    """

    about: str
    students: tuple[Student, ...] = ()
    beside: tuple[TrainingFreeAttacker, ...] = ()
    template: Template = "best"
    mirrored: bool = False
    cohort: Cohort = "none"
    probe_samples: int = 1
    n_links: int = 0

    def with_seed(self, seed: int) -> "Recipe":
        """The recipe with other seeds of its students."""
        students = [replace(each, attacker=each.attacker.with_seed(seed)) for each in self.students]
        return replace(self, students=tuple(students))


class Outcome(NamedTuple):
    """What a recipe has reached.

    Attributes:
        rank_1: rate over images, Full-Ref, source excluded.
        album: rate over people by all of their images.
        chance: rate over images with permuted identities.
        hits: success of each image, shape (P,).
        identities: of the images, shape (P,).
        named: success of each person by the album, shape (N,).
        cpu_seconds: of the trainings, whenever they were done.
    """

    rank_1: Interval
    album: Interval
    chance: float
    hits: Floats
    identities: npt.NDArray[np.str_]
    named: Floats
    cpu_seconds: float


class MatrixScores(Scores):
    """Scores of probes that lie in memory.

    Args:
        table: shape (P, N).
        names: identities of the N columns, sorted.
        own: column of each probe, shape (P,).
        sample_ids: of the probes.
    """

    def __init__(
        self,
        table: Floats,
        names: npt.NDArray[np.str_],
        own: npt.NDArray[np.int64],
        sample_ids: npt.NDArray[np.str_],
    ) -> None:
        self.gallery_identities, self.mated_columns, self.sample_ids = names, own, sample_ids
        self.identities = names[own]
        self._table = np.asarray(table, np.float32)

    def blocks(self) -> Iterator[ScoreBlock]:
        """See :meth:`Scores.blocks`."""
        yield ScoreBlock(np.arange(len(self._table)), self._table)


@dataclass(frozen=True)
class Laboratory:
    """Attacker people, those who are probed, and the folder that keeps what was trained."""

    attackers: CachedImages
    probed: CachedImages
    folder: Path

    def run(self, recipe: Recipe) -> Outcome:
        """Train what is not trained yet, and score."""
        probed, seconds = self.probed, 0.0
        names, own = np.unique(probed.identities, return_inverse=True)
        source = probed.source_rows(recipe.probe_samples)
        parts: list[Floats] = []
        if recipe.students:
            probes, gallery, cohort, seconds = self._embedded(recipe)
            parts.append(self._scores(recipe, probes, gallery, cohort))
        for attacker in recipe.beside:
            probes = probed.embedded(attacker, of_samples=recipe.probe_samples)
            cohort = probes
            if recipe.cohort == "attacker":
                cohort = self.attackers.embedded(attacker, of_samples=1)
            parts.append(self._scores(recipe, probes, probed.embedded(attacker), cohort))
        table = fused(np.stack([normalized(part) for part in parts], 2), own[source])
        scores = MatrixScores(
            parts[0] if len(parts) == 1 else table, names, own[source], probed.sample_ids[source]
        )
        linked = LinkedScores(scores, recipe.n_links)
        ranks = rank_scores(linked)
        hits = success_at_rank(ranks.n_higher, ranks.n_tied, 1)
        albums = rank_scores(AlbumScores(scores))
        named = success_at_rank(albums.n_higher, albums.n_tied, 1)
        return Outcome(
            rate_interval(hits, ranks.identities),
            rate_interval(named, albums.identities),
            float(measured_chance([linked]).permuted.mean()),
            hits,
            ranks.identities,
            named,
            seconds,
        )

    def _embedded(self, recipe: Recipe) -> tuple[Embeddings, Embeddings, Embeddings, float]:
        """Embeddings of probes, gallery and cohort by the mean student, and CPU seconds."""
        sums: list[Any] = [0.0, 0.0, 0.0]
        seconds = 0.0
        for student in recipe.students:
            weights, took = self.trained(student)
            seconds += took
            embed = student.attacker.embedder(weights)
            teacher = getattr(student.attacker, "teacher", None)
            key = digest("embedded", self._key(student))
            probes = self.probed.anonymized(recipe.probe_samples)
            sides = [
                self._kept(
                    f"{key}-probes-{recipe.probe_samples}", embed, student, probes, self.probed
                ),
                self._gallery(key, embed, teacher, recipe.mirrored),
                np.zeros((0, 128)),
            ]
            if recipe.cohort == "attacker":
                images = self.attackers.anonymized()
                sides[2] = self._kept(f"{key}-cohort", embed, student, images, self.attackers)
            sums = [total + side for total, side in zip(sums, sides, strict=True)]
        probes, gallery, cohort = map(unit, sums)
        return probes, gallery, cohort, seconds

    def _gallery(
        self, key: str, embed: Any, teacher: Recognizer | None, mirrored: bool
    ) -> Embeddings:
        if teacher is None:
            path = self.probed.path / f"{key}-gallery.npy"
            return kept(path, lambda: embed(self.probed.originals))
        return self.probed.embeddings(teacher, mirrored=mirrored)

    def _kept(
        self, name: str, embed: Any, student: Student, images: Images, cached: CachedImages
    ) -> Embeddings:
        condition = student.attacker.probe_condition

        def make() -> Embeddings:
            return np.asarray(embed(images if condition is None else condition(images)))

        return kept(cached.path / f"{name}.npy", make)

    def _key(self, student: Student) -> str:
        return digest(repr(student), str(self.attackers.path), *self.attackers.sample_ids.tolist())

    def trained(self, student: Student) -> tuple[dict[str, npt.NDArray[Any]], float]:
        """The student's weights, and the CPU seconds that they took."""
        file = self.folder / "students" / f"{self._key(student)}.safetensors"
        spent = file.with_suffix(".txt")
        if not spent.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            started = time.process_time()
            save_file(self._learnt(student), file)
            spent.write_text(f"{time.process_time() - started:.1f}")
        return load_file(file), float(spent.read_text())

    def _learnt(self, student: Student) -> dict[str, npt.NDArray[Any]]:
        """What a student learns from the attacker's people."""
        attacker, cached = student.attacker, self.attackers
        _, codes = np.unique(cached.identities, return_inverse=True)
        teacher = None
        if isinstance(attacker, DistilledAttacker | Regression):
            teacher = cached.embeddings(attacker.teacher)
        queries, source = cached.anonymized(student.samples), cached.source_rows(student.samples)
        if student.pairs:
            picked = np.random.default_rng(0).permutation(len(source))[: student.pairs]
            queries, source = queries[picked], source[picked]
        if attacker.probe_condition is not None:
            queries = attacker.probe_condition(queries)
        pairs = training_set(student, queries, source, cached.originals, codes, teacher)
        if isinstance(attacker, Regression):
            learnt = attacker.fit(queries, targets_of(pairs, student.target))
            if student.pairs == 0:
                learnt["coefficients"][:] = 0
            return learnt
        trainable = EncoderTrainable(attacker.name, attacker.encoder, attacker.training, pairs)
        loop = TrainingLoop(trainable)
        if student.pairs != 0:
            for point in loop.points():
                print(f"  step {point['step']:.0f}, loss {point['loss']:.3f}", flush=True)
        return {name: value.numpy() for name, value in on_cpu(loop.state()).items()}

    def _scores(
        self, recipe: Recipe, probes: Embeddings, gallery: Embeddings, cohort: Embeddings
    ) -> Floats:
        source = self.probed.source_rows(recipe.probe_samples)
        table = identity_scores(probes, gallery, self.probed.identities, source, recipe.template)
        if recipe.cohort == "none":
            return table
        against = table
        if recipe.cohort == "attacker":
            nobody = np.full(len(cohort), -1)
            against = identity_scores(
                cohort, gallery, self.probed.identities, nobody, recipe.template
            )
        return (table - against.mean(0)) / np.maximum(against.std(0), 1e-6)


def training_set(
    student: Student,
    queries: Images,
    source: npt.NDArray[np.int64],
    originals: Images,
    codes: npt.NDArray[np.int64],
    teacher: Embeddings | None,
) -> PairSet:
    """What a student learns from.

    Args:
        source: row of the original of each query.
        codes: identity of each original.
        teacher: embeddings of the originals.
    """
    if student.permuted:
        codes = np.random.default_rng(1).permutation(codes)
        if teacher is not None:
            teacher = teacher[np.random.default_rng(2).permutation(len(teacher))]
    if student.target == "source":
        # Every original is a person of its own, so that its embedding is the only target.
        codes = np.arange(len(codes))
    elif student.target == "identity" and teacher is not None:
        teacher = identity_means(teacher, codes)[codes]
    return PairSet(queries, codes[source], source, originals, codes, False, teacher)


def targets_of(pairs: PairSet, target: Target) -> Embeddings:
    """The embedding that a regression predicts of each query; mixed: the sum of both kinds."""
    teacher = pairs.teacher_embeddings
    if teacher is None:
        raise ValueError("a regression needs a teacher's embeddings")
    source = teacher[pairs.query_source]
    if target != "mixed":
        return source
    means = identity_means(teacher, pairs.original_identities)
    return source + means[pairs.original_identities[pairs.query_source]]


def identity_scores(
    probes: Embeddings,
    gallery: Embeddings,
    identities: npt.NDArray[np.str_],
    source: npt.NDArray[np.int64],
    template: Template,
) -> Floats:
    """Scores of probes with each identity of a gallery, their own source left out, shape (P, N).

    Args:
        probes: unit norm, shape (P, d).
        gallery: unit norm, shape (R, d).
        identities: of the gallery, shape (R,).
        source: row of the gallery that each probe was made from; -1: none, shape (P,).
    """
    _, columns = np.unique(identities, return_inverse=True)
    order = np.argsort(columns, kind="stable")
    starts = np.searchsorted(columns[order], np.arange(columns.max() + 1))
    scores = np.asarray(probes, np.float64) @ np.asarray(gallery, np.float64).T
    sourced = np.flatnonzero(source >= 0)
    scores[sourced, source[sourced]] = -np.inf
    # (P, R) in the order of identities, reduced to (P, N).
    best = np.maximum.reduceat(scores[:, order], starts, axis=1)
    if template == "best":
        return best
    sums = np.add.reduceat(np.asarray(gallery, np.float64)[order], starts, axis=0)
    mean = probes @ unit(sums).T
    own = columns[source[sourced]]
    # The probe's own identity without its source: (K, d).
    rest = unit(sums[own] - gallery[source[sourced]])
    mean[sourced, own] = np.einsum("kd,kd->k", probes[sourced], rest)
    return np.asarray(mean if template == "mean" else best + mean, np.float64)


def fused(scores: Floats, own: npt.NDArray[np.int64]) -> Floats:
    """Weighted sums of R attackers' scores (P, N, R), shape (P, N).

    The weights of the people of one half are fitted on those of the other, so that nobody is
    scored by weights that were fitted on them.
    """
    half = own % 2
    total = np.empty(scores.shape[:2])
    for part in (0, 1):
        fit, use = half != part, half == part
        total[use] = scores[use] @ fit_weights(scores[fit], own[fit], PENALTY)
    return total


def unit(vectors: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
    """Vectors (..., d) of norm 1; zeros stay zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)


def difference(of: Outcome, to: Outcome) -> Interval | None:
    """Paired difference of two rates of the same images, 95 % over people; None: others."""
    if not np.array_equal(of.identities, to.identities):
        return None
    return bootstrap_mean(of.hits - to.hits, of.identities)


def distilled(n_frozen_layers: int = 7, steps: int = 60, **training: Any) -> AdaptiveDistilled:
    """The product's adaptive, distilled attacker as its small preset trains it, but for this."""
    settings: dict[str, Any] = {
        "max_steps": steps,
        "batch_size": 32,
        "learning_rate": 5e-4,
        "warmup_steps": 10,
        "validate_every": 20,
    }
    return AdaptiveDistilled(
        SFaceEncoder(n_frozen_layers), TrainingConfig(**{**settings, **training})
    )

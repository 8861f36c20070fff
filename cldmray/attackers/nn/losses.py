"""The seed paper's contrastive objective, for one process or many.

Source: Lorenz, Ludwig, Haug, Lienhart, arXiv 2504.05849 (2025); the one-directional form of
NT-Xent (Chen et al. 2020) / InfoNCE (van den Oord et al. 2018).
"""

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_functional
from torch import Tensor


def nt_xent(
    queries: Tensor,
    keys: Tensor,
    temperature: float,
    first: int = 0,
    identities: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy of finding each query's own key among all keys (NT-Xent, InfoNCE).

    ``loss = mean_i -log( exp(q_i . k_(first+i) / t) / sum_j exp(q_i . k_j / t) )``

    Args:
        queries: unit norm, shape (n, d): the anonymized view.
        keys: unit norm, shape (m, d), m >= first + n: the originals; keys of other identities
            are the negatives. There are no query-query terms and no key-to-query direction.
        temperature: t > 0.
        first: row of ``keys`` that belongs to query 0; query i belongs to row ``first + i``.
        identities: code of each key's identity, shape (m,); a query's negatives are then the keys
            of other identities than its own key's. None: each key is of another identity.

    Returns:
        A scalar.
    """
    logits = queries @ keys.T / temperature
    targets = torch.arange(first, first + len(queries), device=queries.device)
    if identities is not None:
        same = identities[targets, None] == identities
        same[torch.arange(len(targets)), targets] = False
        logits = logits.masked_fill(same, -torch.inf)
    return torch.nn.functional.cross_entropy(logits, targets)


def distributed_nt_xent(
    queries: Tensor, keys: Tensor, temperature: float, identities: Tensor | None = None
) -> Tensor:
    """:func:`nt_xent` over the batch of all workers; equal to it in a single process.

    Keys are gathered with their gradients. Each worker's value is the mean over its own queries.
    Averaging gradients over workers, as DistributedDataParallel does, gives the gradient of one
    process with the whole batch, where each worker's loss is weighted by its share of the pairs.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return nt_xent(queries, keys, temperature, identities=identities)
    counts = _counts(keys)
    padded = torch.nn.functional.pad(keys, (0, 0, 0, max(counts) - len(keys)))
    gathered = _joined(dist_functional.all_gather(padded), counts)
    if identities is not None:
        padded = torch.nn.functional.pad(identities, (0, max(counts) - len(keys)))
        codes = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(codes, padded)
        identities = _joined(codes, counts)
    first = sum(counts[: dist.get_rank()])
    return nt_xent(queries, gathered, temperature, first, identities)


def _joined(parts: Iterable[Tensor], counts: Sequence[int]) -> Tensor:
    """The rows of all workers, one worker after the other, without what fills them up."""
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def _counts(rows: Tensor) -> list[int]:
    """How many rows each worker brings."""
    own = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.zeros_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, own)
    return [int(count) for count in counts]


def distributed_guided(
    students: Tensor, targets: Tensor, temperature: float, identities: Tensor | None = None
) -> Tensor:
    """Distillation loss: students go to their targets, and away from those of other identities.

    ``loss = mean_i [ -log( exp(s_i . t_i / T) / sum_j exp(s_i . t_j / T) ) + 1 - s_i . t_i ]``,
    over the batch of all workers, the first term as in :func:`distributed_nt_xent`. Contrast alone
    asks only that a student's own target is the nearest; the cosine brings the student to it.

    Args:
        students: unit norm, shape (n, d).
        targets: the teacher's embeddings, unit norm, shape (n, d), row i for student i.
        temperature: T > 0.
        identities: code of each target's identity, shape (n,); None: they are all different.

    Returns:
        A scalar; each worker's is the mean over its own students.
    """
    cosine = (students * targets).sum(dim=1).mean()
    return distributed_nt_xent(students, targets, temperature, identities) + 1 - cosine

"""k-same: the baseline that claims k-anonymity by construction."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from cldmray.anonymizers.base import GroupAnonymizer
from cldmray.arrays import Images
from cldmray.errors import BadInputError
from cldmray.hashing import identity_hash
from cldmray.results.names import Label
from cldmray.settings import checked_dataclass


@checked_dataclass
class KSame(GroupAnonymizer):
    """Publishes, for each group of at least k images of different people, their mean face.

    Source: Newton, Sweeney, Malin, "Preserving Privacy by De-identifying Face Images", IEEE TKDE
    2005 (k-same-pixel). Every published image stems from at least k people alike, so that nobody
    who sees it can name its person with a probability above 1/k. Their promise is for one image a
    person; here somebody's several images fall into different groups, and each group keeps
    the promise by itself.

    Attributes:
        k: people that share a published face, >= 2.
        thumbnail: side in pixels of the grey thumbnail by which alike faces are found, 1..16. Its
            squared distances are whole numbers below 2**24 that float32 holds exactly, hence the
            same groups on every machine.
        label: name in tables; None: ``k_same``.

    >>> from cldmray.anonymizers import Batch
    >>> images = np.array([0, 10, 200, 220], np.uint8).reshape(4, 1, 1, 1).repeat(3, 3)
    >>> batch = Batch(list("abcd"), images, np.zeros(4, np.int64))
    >>> KSame(k=2, thumbnail=1).open()(batch)[:, 0, 0, 0]
    array([  5,   5, 210, 210], dtype=uint8)
    """

    k: Annotated[int, Field(ge=2)] = 10
    thumbnail: Annotated[int, Field(ge=1, le=16)] = 16
    label: Label | None = None

    @property
    def name(self) -> str:
        return self.label or "k_same"

    @property
    def nominal_k(self) -> int:
        return self.k

    def features(self, images: Images) -> npt.NDArray[np.float32]:
        """Grey thumbnails in whole grey levels 0..255, shape (N, thumbnail**2)."""
        side = self.thumbnail
        thumbnails = np.empty((len(images), side * side), np.float32)
        for position, image in enumerate(images):
            grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            small = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)
            thumbnails[position] = small.ravel()
        return thumbnails

    def plan(
        self,
        sample_ids: Sequence[str],
        identities: Sequence[str],
        features: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.int64]:
        """Partition N images into N // k groups of at least k images of different people.

        Greedy: a group grows around an image of the person with most images left; people who could
        not be placed later come first, then the nearest faces of other people. The fewer than k
        images left over join the nearest groups that lack their person.

        Args:
            sample_ids: N different identifiers.
            identities: N people.
            features: float32, shape (N, d).

        Returns:
            Group numbers 0 .. N // k - 1, int64, shape (N,), the same for any order of the samples.

        Raises:
            BadInputError: fewer than k people, a person with more images than there are groups,
                or a sample twice.
        """
        self._check(sample_ids, identities)
        order = np.argsort(np.asarray(sample_ids, dtype=object), kind="stable")
        unique_identities = np.unique(
            np.asarray(identities, dtype=object)[order], return_inverse=True
        )[1]
        grouped = _partition(
            unique_identities, np.ascontiguousarray(features[order], np.float32), self.k
        )
        groups = np.empty(len(order), np.int64)
        groups[order] = grouped
        return groups

    def merge(self, images: Images) -> Images:
        """Mean of a group's n >= k images, rounded half up, shape (height, width, 3).

        Raises:
            ValueError: fewer than k images.
        """
        count = len(images)
        if count < self.k:
            raise ValueError(f"images of a group must be at least k={self.k}, not {count}")
        total = images.sum(axis=0, dtype=np.int64)
        mean: Images = ((2 * total + count) // (2 * count)).astype(np.uint8)
        return mean

    def _check(self, sample_ids: Sequence[str], identities: Sequence[str]) -> None:
        if len(set(sample_ids)) != len(sample_ids):
            twice = Counter(sample_ids).most_common(1)[0][0]
            raise BadInputError(f"{self.name}: sample {twice} is there more than once")
        counts = Counter(identities)
        if len(counts) < self.k:
            raise BadInputError(f"{self.name}: k={self.k} needs as many people, not {len(counts)}")
        groups = len(identities) // self.k
        most = max(counts.values())
        if most > groups:
            identity = min(name for name, count in counts.items() if count == most)
            raise BadInputError(
                f"{self.name}: identity {identity_hash(identity)} has {most} images, but "
                f"{len(identities)} images make {groups} groups of k={self.k}, each with one "
                "image of a person at most; lower k or drop images of this person"
            )


def _partition(
    identities: npt.NDArray[np.intp], features: npt.NDArray[np.float32], k: int
) -> npt.NDArray[np.int64]:
    """Group numbers of samples that are sorted by id; ``identities`` are codes 0, 1, ...

    With c images left of a person and g groups to come, the sum of min(c, g) over people is at
    least k * g, so that the next group finds k people. That group lowers the sum by k, and by one
    more for each person with c >= g whom it leaves out; it takes those first, and no more of them
    are left out than the sum exceeds k * g.
    """
    total = len(identities) // k
    groups = np.full(len(identities), -1, np.int64)
    counts = np.bincount(identities)
    rows = np.arange(len(identities))
    left = features
    norms = np.einsum("nd,nd->n", left, left)
    for group in range(total):
        seed = int(np.argmax(counts[identities[rows]]))
        order = np.argsort(norms - 2 * (left @ left[seed]), kind="stable")
        pressing = counts >= total - group
        pressed = pressing[identities[rows[order]]]
        queue = np.concatenate([[seed], order[pressed], order[~pressed]])
        members = queue[_first_of_each(identities[rows[queue]], k)]
        groups[rows[members]] = group
        counts[identities[rows[members]]] -= 1
        keep = np.ones(len(rows), bool)
        keep[members] = False
        rows, left, norms = rows[keep], left[keep], norms[keep]
    _place_leftovers(groups, identities, features, total)
    return groups


def _first_of_each(identities: npt.NDArray[np.intp], k: int) -> list[int]:
    """Positions of the first image of each of the first k people in a queue."""
    seen: set[int] = set()
    firsts: list[int] = []
    for position, identity in enumerate(identities.tolist()):
        if identity not in seen:
            seen.add(identity)
            firsts.append(position)
            if len(firsts) == k:
                break
    return firsts


def _place_leftovers(
    groups: npt.NDArray[np.int64],
    identities: npt.NDArray[np.intp],
    features: npt.NDArray[np.float32],
    total: int,
) -> None:
    """Put each ungrouped image into the group with the nearest mean that lacks its person."""
    leftovers = np.flatnonzero(groups < 0)
    if not len(leftovers):
        return
    sums = np.zeros((total, features.shape[1]))
    placed = groups >= 0
    np.add.at(sums, groups[placed], features[placed])
    means = sums / np.bincount(groups[placed], minlength=total)[:, None]
    for row in leftovers:
        distances = np.square(means - features[row]).sum(axis=1)
        distances[groups[(identities == identities[row]) & (groups >= 0)]] = np.inf
        groups[row] = int(np.argmin(distances))

"""Records of what anonymized images still hold of their originals, apart from who they show."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class UntouchedFaces:
    """How many images of one anonymizer still show the face that they were made from.

    An image is untouched where a public recognizer matches it with its own original above the
    threshold at which one in 1,000 pairs of different people would match, or where the pixels of
    the face have not changed by more than a grey level.

    Attributes:
        anonymizer: its name in tables.
        n_images: images that were looked at, those of evaluated people.
        n_untouched: those that match, are unchanged, or both.
        n_matched: those that match; None where no recognizer could tell.
        n_unchanged: those with unchanged pixels.
        value: ``n_untouched / n_images``, with confidence bounds ``low`` and ``high`` over
            identities, in [0, 1].
        recognizer: attacker whose embeddings were compared; None where there is none that reads
            originals and anonymized images alike, or too few originals to set its threshold.
        threshold: cosine above which two images match.
        samples: ids of some of the untouched images, sorted.
    """

    anonymizer: str
    n_images: int
    n_untouched: int
    n_matched: int | None
    n_unchanged: int
    value: float
    low: float
    high: float
    recognizer: str | None = None
    threshold: float | None = None
    samples: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class InferenceRow:
    """How well one attribute is read from one anonymizer's images of people whom nobody names.

    Attributes:
        anonymizer: its name in tables.
        attacker: whose embeddings the classifier reads.
        attribute: such as ``sex``.
        value: balanced accuracy on images of evaluated people, the mean over the attribute's values
            of the share that is read right, with confidence bounds ``low`` and ``high`` over
            identities, in [0, 1].
        chance: one over the number of values, which a classifier reaches that sees nothing.
        clean: the same on clean images, by a classifier that learnt from clean images; None where
            that was not measured.
        n_images: images of evaluated people.
        n_identities: whom they show.
        n_learnt_images: anonymized images of other people that the classifier learnt from.
    """

    anonymizer: str
    attacker: str
    attribute: str
    value: float
    low: float
    high: float
    chance: float
    clean: float | None
    n_images: int
    n_identities: int
    n_learnt_images: int


@dataclass(frozen=True)
class NearestTrainingImage:
    """The training image that an anonymized image is nearest to.

    Attributes:
        sample_id: of the source of the anonymized image.
        training_sample: id of the training image.
        score: cosine of their embeddings.
    """

    sample_id: str
    training_sample: str
    score: float


@dataclass(frozen=True)
class Memorization:
    """How many images of one anonymizer lie nearer to a training image than real strangers do.

    Attributes:
        anonymizer: its name in tables.
        recognizer: attacker whose embeddings are compared.
        value: share of its images whose nearest training image scores above ``threshold``, with
            confidence bounds ``low`` and ``high`` over identities, in [0, 1].
        chance: the same share of originals of evaluated people, at most 0.01, with the upper bound
            ``chance_high``.
        threshold: cosine that at most one original in 100 exceeds.
        n_images: of the anonymizer, of evaluated people.
        n_identities: whom their sources show.
        n_training_images: that were searched.
        nearest: the nearest pairs, nearest first.
    """

    anonymizer: str
    recognizer: str
    value: float
    low: float
    high: float
    chance: float
    chance_high: float
    threshold: float
    n_images: int
    n_identities: int
    n_training_images: int
    nearest: list[NearestTrainingImage] = field(default_factory=list)

    @property
    def is_suspicious(self) -> bool:
        """Whether more images lie next to a training image than originals may."""
        return self.low > self.chance_high

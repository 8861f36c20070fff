"""Which anonymized images lie next to an image that their anonymizer was trained on."""

from cldmray.config.audit import AuditConfig
from cldmray.engine.artifacts import Artifact
from cldmray.errors import ConfigError
from cldmray.evaluation.identification import view_of
from cldmray.evaluation.memorization import memorization
from cldmray.faces.records import AUXILIARY, ORIGINAL
from cldmray.gallery.index import GalleryIndex
from cldmray.pipelines.attack_runner import AttackResults, AttackRunner
from cldmray.pipelines.utility import features_attacker
from cldmray.report.formatting import percent
from cldmray.results.content import Memorization


def check_memorization(config: AuditConfig) -> None:
    """Find out before any work starts whether images can be compared.

    Raises:
        ConfigError: training images are given, and no attacker compares any two images.
    """
    if config.audit.training_faces is not None and features_attacker(config.attackers) is None:
        raise ConfigError(
            "audit.training_faces: takes an attacker that depends on no anonymizer and reads "
            "images as they are, such as pretrained or clean_trained; add one to attackers"
        )


def measure_memorization(
    config: AuditConfig, table: Artifact | None, runner: AttackRunner, results: AttackResults
) -> list[Memorization]:
    """Search the training images of ``audit.training_faces`` for what each anonymizer gave back.

    Args:
        table: of these images; None: there are none.
        results: of the attacks, whose embeddings of the anonymized images are searched with.

    Returns:
        One record an anonymizer; none where no training images are training.
    """
    attacker = features_attacker(config.attackers)
    if table is None or attacker is None:
        return []
    names = [anonymizer.name for anonymizer in config.anonymizers.values()]
    fitted = results.fitted[names[0], attacker.name]
    embedded = attacker.references(fitted, (AUXILIARY,), runner.context(table))
    training = view_of(embedded, ORIGINAL)
    index = GalleryIndex.build(
        training.vectors, training.identities, training.sample_ids, recognizer=attacker.name
    )
    measured = []
    for name in names:
        embeddings = results.embeddings[name, attacker.name]
        record = memorization(
            name,
            attacker.name,
            view_of(embeddings, name),
            view_of(embeddings, ORIGINAL),
            index,
            config.audit,
        )
        if record is not None:
            measured.append(record)
    return measured


def memorization_notes(config: AuditConfig, measured: list[Memorization]) -> list[str]:
    """A warning about every anonymizer whose images lie next to training images too often."""
    if config.audit.training_faces is not None and not measured:
        return [
            "Whether anonymizers give back their training images was not measured: it takes at "
            "least 100 images of evaluated people, and a training image."
        ]
    return [
        f"{record.anonymizer} may give back people that it was trained on: "
        f"{percent(record.value)} of its images ({percent(record.low)} to {percent(record.high)}) "
        f"lie nearer to a training image than {percent(1 - record.chance)} of the originals do, "
        f"for example image {record.nearest[0].sample_id} to training image "
        f"{record.nearest[0].training_sample}."
        for record in measured
        if record.is_suspicious
    ]

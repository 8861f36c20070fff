"""Anonymizers that need to see all pictures: features, a plan of groups, one surrogate a group."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from cldmray.anonymizers.base import GroupAnonymizer
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.tables import TASK_CPUS, StageTable, write_records
from cldmray.faces.records import (
    ANONYMIZED,
    ATTACKER,
    ATTACKER_VALIDATION,
    BACKGROUND,
    EVALUATION,
    FACES,
    decode_pictures,
    encode_picture,
)


def anonymize_groups(
    faces: StageTable,
    anonymizer: GroupAnonymizer,
    draws: Mapping[str, int],
    engine: EngineConfig,
    folder: str,
) -> None:
    """Write the anonymized table of a group anonymizer: features, plan, one surrogate a group.

    Evaluation people are never grouped with the attacker's; each picture is published once,
    whatever ``draws`` says.
    """
    used = [split for split, count in draws.items() if count]
    groups = ray.put(plan_groups(faces, anonymizer, used, engine))
    name = anonymizer.name

    def label(block: pa.Table) -> pa.Table:
        known: dict[str, str] = ray.get(groups)
        labels = [known.get(sample, "") for sample in block["sample_id"].to_pylist()]
        table = block.append_column("group", pa.array(labels, pa.string()))
        return table.filter(pc.not_equal(table["group"], ""))

    def merge(group: pa.Table) -> pa.Table:
        ordered = group.sort_by("sample_id")
        surrogate = encode_picture(anonymizer.merge(decode_pictures(ordered["image"].to_pylist())))
        table = ordered.select(["sample_id", "identity", "split"])
        size = len(table)
        for column, value, kind in (
            ("anonymizer", name, pa.string()),
            ("draw", 0, pa.int32()),
            ("seed", 0, pa.int64()),
            ("image", surrogate, pa.binary()),
        ):
            table = table.append_column(column, pa.array([value] * size, kind))
        return table

    labelled = faces.stream(FACES.names, engine.block_rows).map_batches(
        label, batch_format="pyarrow", batch_size=None, num_cpus=TASK_CPUS
    )
    merged = labelled.groupby("group", num_partitions=4).map_groups(
        merge, batch_format="pyarrow", num_cpus=TASK_CPUS
    )
    write_records(merged, folder, ANONYMIZED)


def plan_groups(
    faces: StageTable, anonymizer: GroupAnonymizer, used: list[str], engine: EngineConfig
) -> dict[str, str]:
    """Group label of every sample of the used splits; the attacker's splits are one pool."""

    def features(block: pa.Table) -> pa.Table:
        found = anonymizer.features(decode_pictures(block["image"].to_pylist()))
        table = block.select(["sample_id", "identity", "split"])
        return table.append_column("features", pa.array(list(found), pa.list_(pa.float32())))

    stream = faces.stream(FACES.names, engine.block_rows).map_batches(
        features, batch_format="pyarrow", batch_size=None, num_cpus=TASK_CPUS
    )
    rows = sorted(stream.iter_rows(), key=lambda row: row["sample_id"])
    labels: dict[str, str] = {}
    for pool in ([EVALUATION], [ATTACKER, ATTACKER_VALIDATION, BACKGROUND]):
        members = [row for row in rows if row["split"] in pool and row["split"] in used]
        if not members:
            continue
        ids = [row["sample_id"] for row in members]
        people = [row["identity"] for row in members]
        plan = anonymizer.plan(ids, people, np.stack([row["features"] for row in members]))
        found = (f"{pool[0]} {group}" for group in plan)
        labels.update(zip(ids, found, strict=True))
    return labels

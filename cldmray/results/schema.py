"""What the files of an audit hold: every column and key, and when it is there.

``results.parquet``, ``results.json``: one row for each anonymizer x attacker x protocol x gallery x
subset x measure.

=====================  ===========================================================================
``anonymizer``         name of the setting under test
``attacker``           name of the attacker
``protocol``           ``full_ref``, ``few_ref`` or ``single_ref``: references of each identity
``gallery``            ``source_excluded`` (cross-image), ``source_included`` (same-image) or
                       ``anonymized_only`` (linkage)
``subset``             ``all``; ``sex=female`` for one group of identities, where groups are known
                       and have 5 evaluated identities; ``region=face`` for masked probes, where
                       ``audit.regions`` asks for them
``measure``            ``rank_1`` in every subset. In ``all`` also: ``rank_5``, ``rank_10``,
                       ``mean_reciprocal_rank``, ``mean_rank``, ``median_rank``, ``p10_rank``,
                       ``median_rank_by_identity``, ``p10_rank_by_identity``, ``k_not_rejected``
                       (its ``ci_low`` is ``k_supported``), ``k_point_estimate``;
                       ``rank_1_by_seed`` where an attacker was trained several times (the bounds
                       are the lowest and the highest training); and where the scores are known,
                       ``rank_1_shuffled``, ``eer``, ``tmr_at_fmr_*``, ``d_sys``, and
                       ``fnir_at_fpir_*`` where at least two identities are enrolled
``value``              of the measure; rates in 0..1
``ci_low, ci_high``    confidence bounds at ``audit.confidence_level``, over identities
``n_probes``           anonymized images
``n_identities``       whom they show
``gallery_size``       identities in the gallery
``chance``             what chance gives
=====================  ===========================================================================

``utility.parquet``, ``utility.json``, where utility was measured: ``anonymizer``, ``measure``
(``ssim``, ``edge_f1``, ``face_detection_rate``, ``pose_consistency``, ``<attribute>_agreement``,
``frechet_<features>``), ``value``, ``ci_low``, ``ci_high``, ``n_images``, ``higher_is_better``,
``clean`` (what clean images reach; null where not measured), ``chance`` (what needs no look at the
original; null where there is no such).

``attribution.parquet``, ``attribution.json``, where an anonymizer has a condition: see
:class:`cldmray.results.attribution.AttributionRow`; bounds may be infinite (null in JSON).

``rejected.parquet``: ``sample_id``, ``identity``, ``location``, ``reason`` of files that were not
audited.

``images.parquet``, where there are examples: ``place`` (which example), ``anonymizer`` (empty for
originals), ``kind`` (``original``, ``condition`` or ``anonymized``), ``image`` (PNG).

``evidence.parquet``, where an anonymizer leaks and there are examples: ``anonymizer``,
``attacker``, ``anonymized`` (PNG), ``matches`` (PNGs of the best reference of each
of the best identities), ``mated`` (whether each shows the image's own person), ``scores``.

``report.json``: ``schema_version``; ``title``, ``created``, ``data_fingerprint``, ``n_listed``,
``notes``, ``settings`` (secrets masked), ``versions``, ``stages``; ``verdict`` with ``sentence``,
``machine`` (as in ``verdict.json``), ``recommendation`` (null where none was asked for) and
``gate``; ``risks``, see :class:`cldmray.results.audit.AnonymizerRisk`; ``curves``, the CMC of each
risk's attack; ``diagnostics`` of the attackers; ``attribution`` with ``headline``, ``statements``
and ``confidence_level`` (null where there is none).

``verdict.json``: ``schema_version``; ``sentence``; ``severity`` (``leak``, ``inconclusive``,
``no_leak_found``); ``fail_on`` (null without rules); ``gate`` with ``outcome`` and ``reasons``;
``target_k``; ``recommended`` with ``name`` (null: none), ``reason``, ``most_useful``, ``control``,
``utility``;
``settings``, one for each attacked anonymizer: ``anonymizer``, ``candidate``, ``is_control``,
``release`` (``yes``, ``no``, ``inconclusive``; null for controls), ``release_reason``, ``finding``,
``rank_1``, ``ci_low``, ``ci_high``, ``confidence_level``, ``chance``, ``attacker``, ``protocol``,
``gallery``, ``simultaneous_upper_bound``, ``k_supported``, ``k_not_rejected``,
``point_estimate_k``, ``note``; ``utility_kept`` with ``value``, ``ci_low``, ``ci_high`` (null where
not measured) and ``keeps_nothing``; and ``cross_image``, ``same_image``, ``person_level`` and
``linkage``, each the strongest attack of its kind (null where there is none) with ``attacker``,
``protocol``, ``gallery``, ``value``, ``ci_low``, ``ci_high``, ``chance``.
"""

import pyarrow as pa

from cldmray.errors import BadInputError

SCHEMA_VERSION = 1
"""Of all files above; it rises whenever a column or key changes its name or meaning."""
KEY = b"cldmray.schema_version"


def stamped(table: pa.Table) -> pa.Table:
    """The table with the schema version in its metadata.

    >>> stamped(pa.table({"value": [1.0]})).schema.metadata
    {b'cldmray.schema_version': b'1'}
    """
    metadata = table.schema.metadata or {}
    return table.replace_schema_metadata({**metadata, KEY: str(SCHEMA_VERSION).encode()})


def check_version(uri: str, version: object) -> None:
    """Raise ``BadInputError`` unless a file was written in today's version.

    >>> check_version("run/report.json", 1)
    """
    if version != SCHEMA_VERSION:
        raise BadInputError(
            f"{uri} has schema_version {version}, not {SCHEMA_VERSION}: read it with the cldmray "
            "that wrote it, or run the audit again"
        )

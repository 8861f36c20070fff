"""The jobs of the command line: a composed configuration goes in, an exit status comes out."""

from omegaconf import DictConfig

GATE_FAILED = 3
"""Exit status of an audit that ran and whose ``audit.fail_on`` holds."""


def audit(composed: DictConfig) -> int:
    """Audit anonymizers; the last line of the output is the verdict, ``CLDMRAY_VERDICT {...}``.

    Returns:
        0: passed, or nothing to fail on; 3: ``audit.fail_on`` holds.

    Raises:
        CldmrayError: the audit could not run, or not be recorded in MLflow.
    """
    from cldmray.config.audit import build_audit
    from cldmray.config.instantiate import to_container
    from cldmray.pipelines.jobs import plan_audit, run_audit
    from cldmray.report.terminal import print_report, verdict_line

    config, settings = build_audit(composed), to_container(composed)
    if config.audit.dry_run:
        plan_audit(config, settings)
        return 0
    result = run_audit(config, settings)
    print_report(result.record)
    print(f"\n{result.places}\n{verdict_line(result.verdict)}", flush=True)
    result.raise_tracking_error()
    return GATE_FAILED if result.verdict.gate.outcome == "failed" else 0


def anonymize(composed: DictConfig) -> None:
    """Write the images that an audit would attack as files.

    Raises:
        CldmrayError: the images could not be made.
    """
    from cldmray.config.audit import build_audit
    from cldmray.errors import redact_text
    from cldmray.pipelines.jobs import run_anonymization

    for folder in run_anonymization(build_audit(composed)):
        print(f"Images: {redact_text(folder)}", flush=True)


def attribute(composed: DictConfig) -> None:
    """Find out what carries the leak: ablations, condition swaps, an operating point.

    Raises:
        CldmrayError: the study could not run, or not be recorded in MLflow.
    """
    from cldmray.config.attribution import build_attribution
    from cldmray.config.instantiate import to_container
    from cldmray.pipelines.jobs import run_attribution
    from cldmray.report.terminal import print_attribution

    result = run_attribution(build_attribution(composed), to_container(composed))
    print_attribution(result.record, result.notes)
    print(f"\n{result.places}", flush=True)
    result.raise_tracking_error()


def invert(composed: DictConfig) -> None:
    """Try to reconstruct the originals from the anonymized images.

    Raises:
        CldmrayError: the study could not run, or not be recorded in MLflow.
    """
    from cldmray.config.instantiate import to_container
    from cldmray.config.reconstruction import build_reconstruction
    from cldmray.pipelines.jobs import run_reconstruction
    from cldmray.report.terminal import print_reconstruction

    result = run_reconstruction(build_reconstruction(composed), to_container(composed))
    print_reconstruction(result.record)
    print(f"\n{result.places}", flush=True)
    result.raise_tracking_error()


def train_cldm(composed: DictConfig) -> None:
    """Train the small CLDM on auxiliary and rendered identities.

    Raises:
        CldmrayError: the training failed, or it could not be recorded in MLflow.
    """
    from cldmray.config.instantiate import build, to_container
    from cldmray.models.jobs import CldmJob, run_cldm_training
    from cldmray.pipelines.jobs import connected

    settings = to_container(composed)
    job = build(settings, CldmJob, "")
    engine = job.engine if job.training.workers else None
    run_cldm_training(job, settings, connected(job.tracking, engine, output=job.output))


def train_depth(composed: DictConfig) -> None:
    """Train the depth network on rendered heads.

    Raises:
        CldmrayError: the training failed, or it could not be recorded in MLflow.
    """
    from cldmray.config.instantiate import build, to_container
    from cldmray.models.jobs import DepthJob, run_depth_training
    from cldmray.pipelines.jobs import connected

    settings = to_container(composed)
    job = build(settings, DepthJob, "")
    run_depth_training(job, settings, connected(job.tracking, job.engine, output=job.output))

"""Audit face anonymizers: ``python jobs/full_audit.py [faces=lfw] [anonymizers=[no_op,blur]] ...``

The same as ``cldmray audit``. Exit status: 0 passed or nothing to fail on, 3 the audit ran and
``audit.fail_on`` holds, 1 it could not run or not be recorded in MLflow (2: an option is unknown).
The last line of its output is the verdict: ``CLDMRAY_VERDICT {...}``, JSON.
"""

from cldmray.cli.jobs import audit
from cldmray.cli.runtime import run_job

if __name__ == "__main__":
    run_job(audit, "audit")

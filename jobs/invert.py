"""Inversion attacks: ``python jobs/invert.py [reconstruction.search.trials=20] ...``

The same as ``cldmray invert``.
"""

from cldmray.cli.jobs import invert
from cldmray.cli.runtime import run_job

if __name__ == "__main__":
    run_job(invert, "invert")

"""Train the small CLDM on auxiliary identities: ``python jobs/train_cldm.py faces.root=DIR``"""

from cldmray.cli.jobs import train_cldm
from cldmray.cli.runtime import run_job

if __name__ == "__main__":
    run_job(train_cldm, "cldm")

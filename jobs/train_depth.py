"""Train the depth network on rendered heads: ``python jobs/train_depth.py``"""

from cldmray.cli.jobs import train_depth
from cldmray.cli.runtime import run_job

if __name__ == "__main__":
    run_job(train_depth, "depth")

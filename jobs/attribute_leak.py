"""What carries the leak: ``python jobs/attribute_leak.py [attribution.scales=[0,1]] ...``

The same as ``cldmray attribute``.
"""

from cldmray.cli.jobs import attribute
from cldmray.cli.runtime import run_job

if __name__ == "__main__":
    run_job(attribute, "attribute")

"""Script of two processes: the workers of the distributed losses, FOLDER RANK.

They meet once, and compute what ``test_losses.py`` and ``test_gradient_cache.py`` compare.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tests.attackers.nn import test_gradient_cache, test_losses

MODULES = {"losses": test_losses, "gradient_cache": test_gradient_cache}

if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", world_size=2, rank=rank)
    for name, module in MODULES.items():
        own = folder / name
        own.mkdir(exist_ok=True)
        module.run_worker(rank, own)
    dist.barrier()
    os._exit(0)  # gloo's threads may deadlock with the destructors of a regular exit

"""The folder of a trained depth network: weights, architecture, card."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file

from cldmray.conditions.depth import CONFIG_FILE, WEIGHTS_FILE
from cldmray.conditions.depth_network import DepthArchitecture, DepthNetwork

CARD = """---
license: apache-2.0
tags: [depth-estimation, faces]
---
# {title}

Guesses the relative depth of one face from a {size}x{size} image ({parameters:,} parameters): the
nearest point of the person is 1, the farthest 0.25, the background 0. It was trained on rendered
heads alone, whose depth is exact, and on nobody's image; on images its maps are guesses
of the same kind, good enough to condition a diffusion model, not to measure anybody.

Weights are fp16 safetensors of `cldmray.conditions.depth_network.DepthNetwork`.

Command: `python jobs/train_depth.py`, with the settings

```yaml
{settings}
```
"""
DECISIVE = ("faces", "training", "architecture")


def save_depth(
    folder: Path,
    network: DepthNetwork,
    architecture: DepthArchitecture,
    settings: Mapping[str, Any],
) -> None:
    """Write ``depth.safetensors`` (fp16), ``config.json`` and ``README.md``.

    Args:
        folder: created where absent.
        settings: the composed configuration of the training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: value.half().contiguous() for key, value in network.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps(asdict(architecture)) + "\n")
    printed = {key: dict(settings[key]) for key in DECISIVE}
    printed["training"].pop("storage")
    text = CARD.format(
        title=folder.name,
        size=architecture.size,
        parameters=sum(value.numel() for value in network.parameters()),
        settings=yaml.safe_dump(printed, sort_keys=False).strip(),
    )
    (folder / "README.md").write_text(text)

"""What travels with trained CLDM weights: the model card, hashed identities, sample images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cldmray.anonymizers.base import Batch
from cldmray.anonymizers.diffusion import Control, Diffusion
from cldmray.arrays import Images
from cldmray.conditions.base import Condition
from cldmray.hashing import identity_hash

IDENTITIES_FILE = "training_identities.txt"
CARD_FILE = "README.md"
CARD = """---
library_name: diffusers
license: apache-2.0
tags: [face-anonymization, controlnet, privacy-audit]
---
# {title}

A small conditioned latent diffusion model that anonymizes {size}x{size} face images from condition
maps, with one ControlNet each: {conditions}. It exists to be *audited*: it is a stand-in, small
enough for a laptop, for the Stable Diffusion + ControlNet systems that are proposed as anonymizers.
It does not anonymize people, and nobody should release images on the strength of it.

## Parts
{parts}

Weights are stored as fp16 safetensors in the usual folders of diffusers;
`StableDiffusionControlNetPipeline.from_pretrained(folder, controlnet=..., dtype=torch.float32)`
opens them on a CPU. The text encoder is untrained: prompts are labels without meaning.

## Training
- Data: {data}.
  Of a data set of images these are auxiliary people, whom no audit with the same splits
  evaluates. The hashed names of all are in `{identities}`, so that an audit can refuse to
  evaluate anybody whom the model was trained on.
- Command: `python jobs/train_cldm.py`, with the settings

```yaml
{settings}
```

## Limits
- It has the biases of its training images: who is frequent there is drawn best.
- {size} pixels are few: reconstructions are soft, fine texture is invented.
- The model has seen its auxiliary people many times and may reproduce them; do not use its
  output as images of people who do not exist.
"""
DECISIVE = ("training", "architecture", "splits", "conditions", "synthetic")
"""Parts of the composed configuration that decide the weights; the card prints them."""


def write_card(
    folder: Path,
    identities: Mapping[str, Sequence[str]],
    parts: Mapping[str, Any],
    settings: Mapping[str, Mapping[str, Any]],
    *,
    size: int,
) -> None:
    """Write ``README.md`` and ``training_identities.txt`` into a pipeline folder.

    Args:
        identities: by face source, the identity of every training image, repeated as often as it
            has images.
        parts: as :func:`cldmray.models.cldm.save_controlnet_pipeline` takes them.
        settings: what decided the weights, JSON-like.
        size: side of the images in pixels.
    """
    modules = {name: parts[name] for name in ("vae", "unet", "text_encoder")}
    modules |= {f"controlnet-{name}": network for name, network in parts["controlnets"].items()}
    counted = {
        name: sum(parameter.numel() for parameter in module.parameters())
        for name, module in modules.items()
    }
    data = [
        f"{len(images):,} images of {len(set(images)):,} people of `{source}`"
        for source, images in identities.items()
    ]
    printed = {key: dict(value) for key, value in settings.items()}
    for place in ("storage", "arrays"):
        printed["training"].pop(place, None)
    text = CARD.format(
        title=folder.name,
        size=size,
        conditions=", ".join(parts["controlnets"]),
        parts="\n".join(f"- `{name}`: {count:,} parameters" for name, count in counted.items()),
        data=",\n  ".join(data),
        identities=IDENTITIES_FILE,
        settings=yaml.safe_dump(printed, sort_keys=False).strip(),
    )
    (folder / CARD_FILE).write_text(text)
    hashes = sorted(
        {identity_hash(identity) for images in identities.values() for identity in images}
    )
    header = f"# SHA-256 prefixes of the people of {', '.join(identities)} in the training.\n"
    (folder / IDENTITIES_FILE).write_text(header + "\n".join(hashes) + "\n")


def samples(
    folder: Path, originals: Images, conditions: Mapping[str, Condition]
) -> dict[str, tuple[Images | None, Images]]:
    """Anonymize images without a condition, and with each one alone.

    Args:
        folder: pipeline folder with one ``controlnet-<name>`` a condition.
        originals: uint8 (N, size, size, 3).
        conditions: by the names of their ControlNets.

    Returns:
        By ``none`` and the conditions' names: condition maps (None for ``none``) and anonymized
        images, each uint8 (N, size, size, 3).
    """
    names = [str(number) for number in range(len(originals))]
    seeds = np.arange(len(originals))
    unconditioned = Diffusion(str(folder)).open()(Batch(names, originals, seeds, {}))
    sampled: dict[str, tuple[Images | None, Images]] = {"none": (None, unconditioned)}
    for name, condition in conditions.items():
        maps = condition(originals)
        anonymizer = Diffusion(str(folder), {name: Control(condition, f"controlnet-{name}")})
        sampled[name] = (maps, anonymizer.open()(Batch(names, originals, seeds, {name: maps})))
    return sampled

"""The model card and the list of people that travel with trained CLDM weights."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from cldmray.hashing import identity_hash

IDENTITIES_FILE = "training_identities.txt"
CARD_FILE = "README.md"

CARD = """---
library_name: diffusers
license: apache-2.0
tags: [face-anonymization, controlnet, privacy-audit]
---
# {title}

A small conditioned latent diffusion model that redraws {size}x{size} face pictures from their
{conditions} maps. It exists to be *audited*: it is a stand-in, small enough for a laptop, for the
Stable Diffusion + ControlNet systems that are proposed as anonymizers. It does not anonymize
people, and nobody should release pictures on the strength of it.

## Parts
{parts}

Weights are stored as fp16 safetensors in the usual folders of diffusers;
`StableDiffusionControlNetPipeline.from_pretrained(folder, controlnet=..., dtype=torch.float32)`
opens them on a CPU. The text encoder is untrained: prompts are labels without meaning.

## Training
- Data: {photos} photos of {people} background people of `{source}`. Their hashed names are in
  `{identities}`, so that an audit can refuse to evaluate anybody whom the model was trained on.
- Command: `python jobs/train_cldm.py`, with the settings

```yaml
{settings}
```

## Limits
- It has the biases of its training photographs: who is frequent there is drawn best.
- {size} pixels are few: reconstructions are soft, fine texture is invented.
- The model has seen its background people many times and may reproduce them; do not use its
  output as pictures of people who do not exist.
"""


def write_card(
    folder: Path,
    source: str,
    identities: Iterable[str],
    conditions: Iterable[str],
    modules: Mapping[str, Any],
    settings: Mapping[str, Any],
    size: int,
) -> None:
    """Write ``README.md`` and ``training_identities.txt`` into a pipeline folder.

    Args:
        source: name of the face source.
        identities: identity of every training photo, repeated as often as it has photos.
        conditions: names of the conditions.
        modules: trained parts by name, whose parameters are counted.
        settings: what decided the weights, JSON-like.
        size: side of the pictures in pixels.
    """
    photos = list(identities)
    people = sorted({identity_hash(identity) for identity in photos})
    counted = {
        name: sum(parameter.numel() for parameter in module.parameters())
        for name, module in modules.items()
    }
    text = CARD.format(
        title=folder.name,
        size=size,
        conditions=", ".join(conditions),
        parts="\n".join(f"- `{name}`: {count:,} parameters" for name, count in counted.items()),
        photos=f"{len(photos):,}",
        people=f"{len(people):,}",
        source=source,
        identities=IDENTITIES_FILE,
        settings=yaml.safe_dump(dict(settings), sort_keys=False).strip(),
    )
    (folder / CARD_FILE).write_text(text)
    header = f"# SHA-256 prefixes of the people of {source} that this model was trained on.\n"
    (folder / IDENTITIES_FILE).write_text(header + "\n".join(people) + "\n")

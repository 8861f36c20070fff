"""Public image networks that an attacker's encoder may be built on.

From torchvision and timm, where they are installed, and from transformers, which always is.
"""

import difflib
import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cldmray.attackers.nn import backbone_weights
from cldmray.attackers.nn.backbone_weights import message
from cldmray.errors import ConfigError, MissingDependencyError
from cldmray.hashing import digest, file_hash

Norm = Literal["group", "batch", "frozen"]

LIBRARIES = ("torchvision", "timm", "transformers")
INSTALL = "pip install 'cldmray[backbones]'"
GROUPS = 32
"""Of group normalisation, as Wu and He 2018 recommend; fewer where they do not divide."""
PROBE = 64
"""Side of the black image on which a network that takes any size is tried."""

RESNETS: dict[str, dict[str, Any]] = {
    "resnet-18": {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]},
    "resnet-34": {"depths": [3, 4, 6, 3], "hidden_sizes": [64, 128, 256, 512]},
    "resnet-50": {"depths": [3, 4, 6, 3], "hidden_sizes": [256, 512, 1024, 2048]},
    "resnet-101": {"depths": [3, 4, 23, 3], "hidden_sizes": [256, 512, 1024, 2048]},
}
"""He et al., "Deep residual learning for image recognition", 2016."""
VITS: dict[str, int] = {"vit-tiny": 192, "vit-small": 384, "vit-base": 768}
"""Width of vision transformers (Dosovitskiy et al. 2021; Touvron et al. 2021), patches of 16."""
VIT_SIDE = 224


class Backbone(NamedTuple):
    """A network that maps images (N, 3, side, side) to features (N, features).

    Attributes:
        network: has neither a classifier nor dropout.
        features: length of its output.
        side: of the images that it needs, pixels; None where it takes any.
    """

    network: nn.Module
    features: int
    side: int | None


def split_name(backbone: str) -> tuple[str, str]:
    """Library and name of ``LIBRARY:NAME``; a name alone is torchvision's.

    Raises:
        ValueError: the library is none of ``LIBRARIES``, or the name is empty.
    """
    library, colon, name = backbone.partition(":")
    if not colon:
        library, name = "torchvision", backbone
    if library not in LIBRARIES or not name:
        raise ValueError(
            "backbone: must be a model of torchvision, timm:NAME or transformers:NAME, "
            f"got {backbone!r}"
        )
    return library, name


def load_backbone(
    backbone: str, pretrained: str | None, input_side: int | None, norm: Norm
) -> Backbone:
    """Build a network, with random weights or with those of ``pretrained``.

    Dropout and its kin are switched off: what a network learns shall depend on the seed, not on
    which worker draws. A vision transformer's random last layer over the class token, if it has
    one, is left out.

    Args:
        backbone, pretrained, input_side, norm: as in
            :class:`~cldmray.attackers.nn.encoder.BackboneEncoder`.

    Raises:
        ConfigError: there is no such network, its weights cannot be read or belong to another one,
            or it yields no features; the message names the key.
        MissingDependencyError: its library is not installed.
    """
    library, name = split_name(backbone)
    if library == "transformers":
        network, side = _transformers(name, pretrained, input_side)
    else:
        build = _torchvision if library == "torchvision" else _timm
        network, side, classifier = build(name)
        if pretrained is not None:
            backbone_weights.load_into(network, pretrained, classifier)
    _switch_off_dropout(network)
    if norm == "group":
        group_norms(network)
    return Backbone(network, _features(backbone, network, input_side or side or PROBE), side)


def version(backbone: str, pretrained: str | None) -> str:
    """Hash of the local files that a network is built from; empty if there are none.

    What lies on the hub is known by its id only.
    """
    library, name = split_name(backbone)
    parts = backbone_weights.local_files(pretrained) if pretrained is not None else []
    config = Path(name).expanduser() / "config.json"
    if library == "transformers" and config.is_file():
        parts.append(config)
    return digest(*(file_hash(file) for file in parts))[:16] if parts else ""


def group_norms(network: nn.Module) -> None:
    """Put group normalisation in the place of every batch normalisation, with its weights.

    Each image is then normalised by itself, in training too.
    """
    for parent in list(network.modules()):
        for name, norm in list(parent.named_children()):
            if not isinstance(norm, _BatchNorm):
                continue
            groups = math.gcd(GROUPS, norm.num_features)
            new = nn.GroupNorm(groups, norm.num_features, norm.eps, norm.affine)
            if norm.affine:
                new.load_state_dict({"weight": norm.weight, "bias": norm.bias})
            # timm's batch normalisation ends with an activation.
            act = getattr(norm, "act", None)
            setattr(parent, name, new if act is None else nn.Sequential(new, act))


def synchronised(network: nn.Module, backbone: str) -> nn.Module:
    """The network with batch normalisation over the batch of all workers, which needs GPUs."""
    convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
    if split_name(backbone)[0] == "timm":
        convert = _library("timm.layers", backbone).convert_sync_batchnorm
    return convert(network)


def freeze_batch_norms(network: nn.Module) -> None:
    """Let every batch normalisation use its stored statistics, and leave them as they are."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


class Pooled(nn.Module):
    """A model of transformers as a map from images to one vector each."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        output = self.model(pixel_values=images)
        pooled: Tensor | None = getattr(output, "pooler_output", None)
        if pooled is None:
            hidden: Tensor = output.last_hidden_state
            pooled = hidden[:, 0] if hidden.ndim == 3 else hidden.mean((2, 3))
        return pooled.flatten(1)


def _transformers(
    name: str, pretrained: str | None, input_side: int | None
) -> tuple[nn.Module, int | None]:
    from transformers import AutoConfig, AutoModel

    config = _fresh_config(name, input_side)
    if config is None:
        try:
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            names = ", ".join([*RESNETS, *VITS])
            raise ConfigError(
                f"encoder.backbone: transformers:{name} is neither one of {names} nor a folder "
                f"or hub id whose config.json can be read: {message(error)}"
            ) from error
    for key in config.to_dict():
        if "drop" in key and isinstance(getattr(config, key), float):
            setattr(config, key, 0.0)
    try:
        if pretrained is None:
            model = AutoModel.from_config(config)
        else:
            model = backbone_weights.load_transformer(config, pretrained)
    except (ImportError, ValueError, KeyError) as error:
        raise ConfigError(
            f"encoder.backbone: transformers:{name} cannot be built: {message(error)}"
        ) from error
    if hasattr(getattr(model, "pooler", None), "dense"):
        model.pooler = None
    side = getattr(config, "image_size", None)
    return Pooled(model), side[0] if isinstance(side, (list, tuple)) else side


def _fresh_config(name: str, input_side: int | None) -> Any:
    """Configuration of a network that is known by name; None for other names."""
    from transformers import ResNetConfig, ViTConfig

    if name in RESNETS:
        layer = "basic" if name in ("resnet-18", "resnet-34") else "bottleneck"
        return ResNetConfig(layer_type=layer, **RESNETS[name])
    if name in VITS:
        width = VITS[name]
        return ViTConfig(
            hidden_size=width,
            num_attention_heads=width // 64,
            intermediate_size=4 * width,
            image_size=input_side or VIT_SIDE,
        )
    return None


def _torchvision(name: str) -> tuple[nn.Module, int | None, tuple[str, ...]]:
    """Network, side that it needs, and name of its classifier, which became the identity."""
    models = _library("torchvision.models", name)
    _check_name(name, models.list_models(module=models), "torchvision")
    network: nn.Module = models.get_model(name, weights=None)
    linear = [key for key, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if not linear or hasattr(network, "aux_logits"):
        raise ConfigError(f"encoder.backbone: {name} does not end with a single linear classifier")
    network.set_submodule(linear[-1], nn.Identity())
    return network, getattr(network, "image_size", None), (linear[-1],)


def _timm(name: str) -> tuple[nn.Module, int | None, tuple[str, ...]]:
    timm = _library("timm", f"timm:{name}")
    _check_name(name.split(".")[0], timm.list_models(), "timm")
    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=0)
    facts: dict[str, Any] = getattr(network, "pretrained_cfg", None) or {}
    side = facts["input_size"][-1] if facts.get("fixed_input_size") else None
    classifier = facts.get("classifier") or ()
    return network, side, (classifier,) if isinstance(classifier, str) else tuple(classifier)


def _switch_off_dropout(network: nn.Module) -> None:
    for module in network.modules():
        kind = type(module).__name__
        if "Drop" in kind or kind == "StochasticDepth":
            for share in ("p", "drop_prob"):
                if hasattr(module, share):
                    setattr(module, share, 0.0)


def _library(module: str, backbone: str) -> Any:
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError, OSError) as error:
        # A torchvision that does not fit the torch build fails with a RuntimeError.
        raise MissingDependencyError(
            f"encoder.backbone: {backbone} needs {module.split('.')[0]}, which cannot be imported "
            f"({message(error)}): {INSTALL}, or choose transformers:resnet-50, which needs nothing"
        ) from error


def _check_name(name: str, names: list[str], library: str) -> None:
    if name not in names:
        close = ", ".join(difflib.get_close_matches(name, names, 5)) or "another name"
        raise ConfigError(f"encoder.backbone: {library} has no model {name!r}; try {close}")


def _features(backbone: str, network: nn.Module, side: int) -> int:
    """Length of the network's output for one image."""
    network.eval()
    try:
        with torch.no_grad():
            output = network(torch.zeros(1, 3, side, side))
    except Exception as error:
        raise ConfigError(
            f"encoder.backbone: {backbone} does not take images of {side} pixels (see "
            f"encoder.input_side): {message(error)}"
        ) from error
    if not isinstance(output, Tensor) or output.ndim != 2:
        raise ConfigError(f"encoder.backbone: {backbone} yields no single vector for an image")
    return output.shape[1]

"""The memory layout in which convolutions run fastest."""

from typing import Any, TypeVar, cast

import torch

Module = TypeVar("Module", bound=torch.nn.Module)


def channels_last(module: Module) -> Module:
    """The module with its weights in channels-last order; results are the same."""
    return cast(Module, cast(Any, module).to(memory_format=torch.channels_last))

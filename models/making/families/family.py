"""What all architectures have in common: where their tensors are, and what their activations are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from models.making.architecture import Activation, Encoder
from models.making.config import Config
from models.making.weights import Tensors

ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
}


@dataclass(frozen=True, slots=True)
class Family:
    """How an architecture's weights are read: by `read`, given the number of labels.

    Its encoder's tensors begin with `prefix`, `head` are the weights of the products of its head, `others` begin tensors that are
    of the head too, and `unread` begin the encoder's tensors that a classifier never reads.
    """

    read: Callable[[Config, Tensors, int], Encoder]
    prefix: str
    head: tuple[str, ...]
    others: tuple[str, ...] = ("classifier.", "pre_classifier.")
    unread: tuple[str, ...] = ()

    def claims(self, tensor: str) -> bool:
        """Whether an unread tensor contradicts the config; index buffers that old checkpoints carry do not."""
        if tensor.startswith(self.unread) or tensor.endswith((".position_ids", ".token_type_ids")):
            return False
        return tensor.startswith((f"{self.prefix}.", *self.others))


def activation(config: Config, name: str, default: str = "gelu") -> Activation:
    """The activation that the config names there. Raises `UnsupportedEncoder`."""
    config.demand(name, default, *ACTIVATIONS)
    return ACTIVATIONS[config.get(name, default)]

"""From an architecture to a Flax module, and between its parameters and artifact tensors.

Guarantees: the module's parameters are exactly the tensors that ``protocol.architecture`` lists, by the
same names; initial parameters are a function of the seed.

Source: design sections 2 (``models``) and 7 (one vocabulary).
"""

from __future__ import annotations

from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, traverse_util
from numpy.typing import NDArray

from offchain.models.artifact import Tensors
from offchain.models.layers import VOCABULARY
from protocol.architecture import Architecture

Parameters = Any
"""Flax's nested dictionary of arrays."""


STATISTICS_MOMENTUM: Final = 0.9
"""Share of the running statistics that a training step keeps."""


class Network(linen.Module):
    """The float model of an architecture: ``[n, *input_shape]`` to the outputs of its last layer.

    In training it needs random numbers under ``dropout`` and reports what batch norm has seen of the data
    in the collection ``statistics``.
    """

    architecture: Architecture
    training: bool = False

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        named: dict[str, jax.Array] = {}
        for index, layer in enumerate(self.architecture.computed_layers):
            others = [named[name] for name in layer.references()]
            kind, name = VOCABULARY[layer.kind], f"{index}.{layer.kind}"
            x = kind.module(layer, name, self.training)(x, *others)
            if layer.name is not None:
                named[layer.name] = x
        return x


def build(architecture: Architecture, *, training: bool = False) -> Network:
    """The Flax module of an architecture."""
    return Network(architecture, training)


def with_statistics(parameters: Parameters, before: Parameters, seen: Parameters) -> Parameters:
    """Parameters after a training step, with running statistics moved towards what it has seen.

    Running statistics are tensors of the model that neither gradient nor weight decay may touch: they move
    from where they were before the step.

    Args:
        seen: the collection ``statistics`` of a network in training; empty without batch norm.
    """
    after = dict(parameters)
    for module, tensors in seen.items():
        after[module] = dict(after[module])
        for name, (batch,) in tensors.items():
            kept = STATISTICS_MOMENTUM * before[module][name]
            after[module][name] = kept + (1 - STATISTICS_MOMENTUM) * batch
    return after


def initialise(architecture: Architecture, seed: int) -> Parameters:
    """Fresh parameters, the same for the same seed and JAX version."""
    kind = jnp.float32 if architecture.vocabulary is None else jnp.int32
    sample = jnp.zeros((1, *architecture.input_shape), kind)
    return jax.jit(build(architecture).init)(jax.random.key(seed), sample)["params"]


def to_tensors(parameters: Parameters) -> Tensors:
    """Flax parameters as float32 tensors by artifact name."""
    flat = traverse_util.flatten_dict(parameters, sep=".")
    return {name: np.asarray(value, np.float32) for name, value in flat.items()}


def from_tensors(tensors: Tensors) -> Parameters:
    """Artifact tensors as Flax parameters."""
    nested: dict[str, dict[str, NDArray[Any]]] = {}
    for name, tensor in tensors.items():
        module, _, own = name.rpartition(".")
        nested.setdefault(module, {})[own] = tensor
    return nested

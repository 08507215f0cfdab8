"""From an architecture to a Flax module, and between its parameters and artifact tensors.

Guarantees: the module's parameters are exactly the tensors that ``protocol.architecture`` lists, by the
same names; initial parameters are a function of the seed.

Source: design sections 2 (``models``) and 7 (one vocabulary).
"""

from __future__ import annotations

from typing import Any

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


class Network(linen.Module):
    """The float model of an architecture: ``[n, *input_shape]`` to ``[n, classes]`` logits."""

    architecture: Architecture

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        named: dict[str, jax.Array] = {}
        for index, layer in enumerate(self.architecture.computed_layers):
            others = [named[name] for name in layer.references()]
            x = VOCABULARY[layer.kind].module(layer, f"{index}.{layer.kind}")(x, *others)
            if layer.name is not None:
                named[layer.name] = x
        return x


def build(architecture: Architecture) -> Network:
    """The Flax module of an architecture."""
    return Network(architecture)


def initialise(architecture: Architecture, seed: int) -> Parameters:
    """Fresh parameters, the same for the same seed and JAX version."""
    sample = jnp.zeros((1, *architecture.input_shape), jnp.float32)
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

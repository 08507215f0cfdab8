"""Model files: the safetensors bytes that a provider reveals and whose SHA-256 is the ``MID``.

Guarantees: equal parameters give equal bytes; a decoded model has exactly the architecture's tensors,
all float32 and finite, and its file had not one byte more. The size that a model file of an architecture
may have is therefore known before a byte of it is fetched (``model_size_bound``).

Source: PoT section 2.3 (the model that a claim commits to); design sections 3 and 11.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offchain.tensors import MAX_HEADER_BYTES, open_tensors, write_tensors
from protocol.architecture import Architecture, parameter_count, parameter_shapes
from protocol.errors import InvalidArtifact

Tensors = dict[str, NDArray[Any]]
"""Parameters by tensor name (``0.dense.kernel``), each float32."""


def model_size_bound(architecture: Architecture) -> int:
    """Most bytes that a model file of this architecture can have."""
    return 8 + MAX_HEADER_BYTES + 4 * parameter_count(architecture)


def encode_model(tensors: Mapping[str, NDArray[Any]], architecture: Architecture) -> bytes:
    """The model file of the parameters.

    Raises:
        InvalidArtifact: the parameters are not the architecture's, or not finite.
    """
    return write_tensors(check_tensors(tensors, architecture))


def decode_model(data: bytes, architecture: Architecture) -> Tensors:
    """The parameters in a model file, as read-only views into ``data``.

    Raises:
        InvalidArtifact: with the one deterministic reason by which every validator refuses the file.
    """
    if len(data) > model_size_bound(architecture):
        raise InvalidArtifact(
            f"the model file has {len(data)} bytes, its architecture allows {model_size_bound(architecture)}"
        )
    tensors, metadata = open_tensors(data)
    if metadata:
        raise InvalidArtifact("a model file carries no metadata")
    return check_tensors(tensors, architecture)


def check_tensors(tensors: Mapping[str, NDArray[Any]], architecture: Architecture) -> Tensors:
    """The same tensors, once it is certain that they are the architecture's, float32 and finite.

    Raises:
        InvalidArtifact: names, a shape, a type or a value is not what it must be.
    """
    expected = parameter_shapes(architecture)
    for name in sorted(set(tensors) ^ set(expected)):
        problem = "is missing" if name in expected else "is not in the architecture"
        raise InvalidArtifact(f"tensor {name[:64]!r} {problem}")
    for name in sorted(expected):
        tensor = tensors[name]
        if tensor.dtype != np.float32:
            raise InvalidArtifact(f"tensor {name!r} must be float32, it is {tensor.dtype}")
        if tensor.shape != expected[name]:
            raise InvalidArtifact(f"tensor {name!r} must have the shape {expected[name]}, not {tensor.shape}")
        if not np.isfinite(tensor).all():
            raise InvalidArtifact(f"tensor {name!r} contains NaN or infinity")
    return {name: tensors[name] for name in sorted(expected)}

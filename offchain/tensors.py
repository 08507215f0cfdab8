"""Safetensors files, read as if sent by an enemy and written so that equal content is equal bytes.

Guarantees: ``open_tensors`` checks the header (its size, its JSON, every dtype, shape and offset, no gap,
no overlap, no byte left over) before it touches or allocates anything of the data, and what it returns
are views into the given bytes; ``write_tensors`` is a function of its arguments, names sorted. Nothing
here ever unpickles.

Source: design section 3 "Model files and data fragments are safetensors"; the safetensors format.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from protocol.errors import InvalidArtifact

MAX_HEADER_BYTES: Final = 1 << 20
MAX_NAME_SHOWN: Final = 64
"""Characters of a tensor's name in an error: a header's megabyte may be one name."""
DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "F32": np.dtype("<f4"),
    "I32": np.dtype("<i4"),
    "U8": np.dtype("u1"),
}
"""The element types that artifacts use; any other is refused."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise InvalidArtifact("the safetensors header names a key twice")
    return dict(pairs)


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    """The header's JSON object and the offset at which tensor data begins."""
    if len(data) < 8:
        raise InvalidArtifact(f"not a safetensors file: {len(data)} bytes hold no header")
    size = int.from_bytes(data[:8], "little")
    if size > MAX_HEADER_BYTES:
        raise InvalidArtifact(f"the safetensors header has {size} bytes, the most is {MAX_HEADER_BYTES}")
    if 8 + size > len(data):
        raise InvalidArtifact("not a safetensors file: the header is longer than the file")
    try:
        header = json.loads(data[8 : 8 + size].decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as reason:
        raise InvalidArtifact("not a safetensors file: the header is not JSON") from reason
    if not isinstance(header, dict):
        raise InvalidArtifact("not a safetensors file: the header is not a JSON object")
    return header, 8 + size


def _extent(name: str, entry: object) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    """Element type, shape and byte range of one header entry, each checked for form."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise InvalidArtifact(f"tensor {name!r} must have exactly dtype, shape and data_offsets")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in DTYPES:
        raise InvalidArtifact(f"tensor {name!r} must be one of {', '.join(DTYPES)}")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
            raise InvalidArtifact(f"tensor {name!r} has a shape or an offset that is no size")
    if len(offsets) != 2 or len(shape) > 8 or 0 in shape:
        raise InvalidArtifact(f"tensor {name!r} must have two offsets and at most 8 axes, none of them empty")
    if offsets[1] - offsets[0] != math.prod(shape) * DTYPES[kind].itemsize:
        raise InvalidArtifact(f"tensor {name!r} does not fill its byte range")
    return DTYPES[kind], tuple(shape), offsets[0], offsets[1]


def open_tensors(data: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read-only views of the tensors by name, and the metadata.

    Raises:
        InvalidArtifact: the bytes are not a safetensors file whose tensors tile its data exactly.
    """
    header, begin = _header(data)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise InvalidArtifact("the safetensors metadata must map strings to strings")
    extents = {name: _extent(name[:MAX_NAME_SHOWN], entry) for name, entry in header.items()}
    end = 0
    for name, (_, _, start, stop) in sorted(extents.items(), key=lambda item: item[1][2:]):
        if start != end:
            raise InvalidArtifact(
                f"tensor {name[:MAX_NAME_SHOWN]!r} overlaps another or leaves a gap before it"
            )
        end = stop
    if begin + end != len(data):
        raise InvalidArtifact(f"the tensors fill {end} bytes, the file has {len(data) - begin} for them")
    views = {
        name: np.frombuffer(data, kind, math.prod(shape), begin + start).reshape(shape)
        for name, (kind, shape, start, _) in extents.items()
    }
    return views, metadata


def write_tensors(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None) -> bytes:
    """The safetensors file of the tensors: equal tensors and metadata give equal bytes."""
    ordered = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    for name, tensor in ordered.items():
        if tensor.dtype not in DTYPES.values():
            raise ValueError(f"tensor {name!r} is {tensor.dtype}, an artifact holds float32, int32 or uint8")
    return save(ordered, metadata=None if metadata is None else dict(sorted(metadata.items())))

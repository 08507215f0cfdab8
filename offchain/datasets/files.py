"""Files that hold one kind of thing: image-IDX (MNIST's format), NumPy archives, plain text.

Guarantees: sizes in a header are checked against the file before anything is allocated for them; nothing is
unpickled; what a fragment cannot hold is refused with its place.

Source: design section 7 (images, token sequences).
"""

from __future__ import annotations

import gzip
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from offchain.datasets.samples import InvalidData, Samples, check_vocabulary
from protocol.architecture import MAX_DIMENSION

MAX_FILE_BYTES: Final = 2**32
MAX_TEXT_BYTES: Final = 2**28
_IDX_UBYTE: Final = 0x08


def _read(path: Path, limit: int) -> bytes:
    """A file's bytes, unpacked if they are gzip's."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as reason:
        raise InvalidData(f"cannot read {path}: {reason}") from reason
    if len(data) > limit:
        raise InvalidData(f"{path} holds more than {limit} bytes")
    return data


def _idx(path: Path, axes: int) -> NDArray[Any]:
    """The array of an IDX file of bytes with so many axes."""
    data = _read(path, MAX_FILE_BYTES)
    if len(data) < 4 + 4 * axes or data[:2] != b"\0\0":
        raise InvalidData(f"{path} is no IDX file")
    if data[2] != _IDX_UBYTE or data[3] != axes:
        raise InvalidData(
            f"{path} must hold bytes in {axes} axes, it has type 0x{data[2]:02x} and {data[3]} axes"
        )
    shape = tuple(int.from_bytes(data[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(axes))
    if math.prod(shape) != len(data) - 4 - 4 * axes:
        raise InvalidData(f"{path} says it holds {shape}, and has {len(data) - 4 - 4 * axes} bytes for it")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def read_images(images: Path, labels: Path) -> Samples:
    """Grey images ``[n, height, width]`` and their labels, as in MNIST; either may be packed with gzip.

    Raises:
        InvalidData: one of them is no such file, or they do not belong together.
    """
    x, y = _idx(images, 3), _idx(labels, 1)
    if len(x) != len(y):
        raise InvalidData(f"{images} holds {len(x)} images, {labels} {len(y)} labels")
    return Samples(
        x[..., None], y.astype(np.int32), {"labels": [str(n) for n in range(int(y.max(initial=1)) + 1)]}
    )


def read_arrays(path: Path) -> Samples:
    """A NumPy archive (``.npz``) with ``x`` and ``y``.

    ``x``: floats, uint8 images, or integer token ids. ``y``: integer labels, integer next tokens per
    position, or floats ``[n]`` or ``[n, values]``.

    Raises:
        InvalidData: no such arrays, or numbers that a fragment cannot hold.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            x, y = arrays["x"], arrays["y"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as reason:
        raise InvalidData(f"{path} has no arrays x and y: {reason}") from reason
    if y.ndim == 1 and np.issubdtype(y.dtype, np.floating):
        y = y[:, None]
    x = x if x.dtype == np.uint8 else _narrowed(x, path, "x")
    return Samples(x, _narrowed(y, path, "y"))


def read_inputs(path: Path) -> NDArray[Any]:
    """What a model may be asked about: array ``x`` of a NumPy archive, or grey images of an IDX file.

    Raises:
        InvalidData: it is neither, or holds numbers that a fragment cannot hold.
    """
    if path.suffix != ".npz":
        return _idx(path, 3)[..., None]
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            x = arrays["x"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as reason:
        raise InvalidData(f"{path} has no array x: {reason}") from reason
    return x if x.dtype == np.uint8 else _narrowed(x, path, "x")


def read_characters(path: Path) -> str:
    """A text file; raises `InvalidData` if it is none."""
    data = _read(path, MAX_TEXT_BYTES)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as reason:
        raise InvalidData(f"{path} is not UTF-8 at byte {reason.start}") from reason


def _narrowed(values: NDArray[Any], path: Path, name: str) -> NDArray[Any]:
    """Floats as float32, integers as int32, if nothing is lost but precision."""
    if np.issubdtype(values.dtype, np.floating):
        with np.errstate(over="ignore"):
            narrow = values.astype(np.float32)
        wrong = ~np.isfinite(narrow)
    elif np.issubdtype(values.dtype, np.integer):
        narrow = values.astype(np.int32)
        wrong = (values < 0) | (values >= MAX_DIMENSION)
    else:
        raise InvalidData(f"{path}: {name} must hold numbers, it holds {values.dtype}")
    if wrong.any():
        place = tuple(int(n) for n in np.argwhere(wrong)[0])
        raise InvalidData(f"{path}: {name}{list(place)} is {values[place]}, which cannot be represented")
    return narrow


def read_text(path: Path, *, length: int) -> Samples:
    """Characters: windows of ``length``, and for each position the character that follows.

    Raises:
        InvalidData: not UTF-8, too short, or all of one character.
    """
    return text_samples(read_characters(path), length, str(path))


def text_samples(text: str, length: int, name: str) -> Samples:
    """See `read_text`."""
    alphabet = sorted(set(text))
    check_vocabulary(len(alphabet), f"{name}: characters")
    if not 2 <= length <= MAX_DIMENSION or len(text) <= length:
        raise InvalidData(f"{name}: {len(text)} characters hold no window of {length} and one more")
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    tokens = np.searchsorted(np.array([ord(c) for c in alphabet], np.uint32), points).astype(np.int32)
    count = (len(tokens) - 1) // length
    x = tokens[: count * length].reshape(count, length)
    y = tokens[1 : count * length + 1].reshape(count, length)
    return Samples(x, np.ascontiguousarray(y), {"alphabet": "".join(alphabet)})

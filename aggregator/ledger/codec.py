"""Ledger values as bytes and back: what snapshots on disk and between members are made of.

The form is the one that the state root hashes (`aggregator.ledger.root.canonical`), so that whoever decodes
a state can hold it against a root. Decoding follows the types that the dataclasses declare; bytes that do
not fit them raise `InvalidEncoding`. Nothing here is part of consensus: a state is believed because its root
was agreed on, not because it could be decoded.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

import msgspec
from immutables import Map

from aggregator.ledger.root import canonical
from aggregator.ledger.tasks.open_records import OpenTask
from protocol.errors import InvalidEncoding
from protocol.parameters import PARAMETERS, Parameters

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder()
_TASK_STATES: dict[str, type] = {OpenTask.__name__: OpenTask}
"""Task states by name: the one place where a field's type is decided by what it holds."""
_MAX_DIGITS = 100

Value = TypeVar("Value")


def encode(value: Any) -> bytes:
    """A ledger value (a dataclass, struct, map, tuple, …) in canonical form."""
    return _ENCODER.encode(canonical(value))


def decode(kind: type[Value], data: bytes) -> Value:
    """Inverse of `encode` for a value of type ``kind``.

    Raises:
        InvalidEncoding: ``data`` is not such a value.
    """
    try:
        return typing.cast(Value, _read(kind, _DECODER.decode(data)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as reason:
        raise InvalidEncoding(f"not a {kind.__name__}: {reason}") from reason
    except (TypeError, ValueError, KeyError, AttributeError) as reason:
        raise InvalidEncoding(f"not a {kind.__name__}: {reason}") from reason


def _read(kind: Any, value: Any) -> Any:
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return _read(typing.get_args(kind)[0], value)
    if origin in (typing.Union, types.UnionType):
        return _read_union(typing.get_args(kind), value)
    if origin is tuple:
        return _read_tuple(typing.get_args(kind), value)
    if origin is not None and issubclass(origin, Mapping):
        key_kind, value_kind = typing.get_args(kind)
        return Map((_read(key_kind, key), _read(value_kind, item)) for key, item in value)
    if kind is Any:
        return None if value is None else _read(_TASK_STATES[value[0]], value)
    return _read_plain(kind, value)


def _read_plain(kind: Any, value: Any) -> Any:
    if kind is Parameters:
        return Parameters(tuple((_parameter(name), _integer(number)) for name, number in value))
    if kind is bool or kind is bytes or kind is type(None):
        return _exactly(kind, value)
    if issubclass(kind, Enum):
        return kind(value if issubclass(kind, str) else _integer(value))
    if issubclass(kind, str):
        return _exactly(str, value)
    if issubclass(kind, int):
        return _integer(value)
    return _read_record(kind, value)


def _read_union(kinds: tuple[Any, ...], value: Any) -> Any:
    if value is None:
        return _exactly(type(None), None if type(None) in kinds else value)
    (kind,) = (kind for kind in kinds if kind is not type(None))
    return _read(kind, value)


def _read_tuple(kinds: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    _exactly(list, value)
    if kinds[1:] == (Ellipsis,):
        return tuple(_read(kinds[0], item) for item in value)
    return tuple(_read(kind, item) for kind, item in zip(kinds, value, strict=True))


def _read_record(kind: Any, value: Any) -> Any:
    name, *items = value
    if name != kind.__name__:
        raise TypeError(f"{name!r} where a {kind.__name__} belongs")
    fields = _fields(kind)
    return kind(
        **{field: _read(hint, item) for (field, hint), item in zip(fields.items(), items, strict=True)}
    )


@functools.cache
def _fields(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    if dataclasses.is_dataclass(kind):
        return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    return {name: hints[name] for name in kind.__struct_fields__}


def _parameter(name: Any) -> str:
    if name not in PARAMETERS:
        raise KeyError(f"no parameter is called {name!r}")
    return str(name)


def _integer(value: Any) -> int:
    if not isinstance(value, str) or len(value) > _MAX_DIGITS:
        raise TypeError("an integer is decimal text")
    number = int(value)
    if str(number) != value:
        raise ValueError(f"{value!r} is not how an integer is written")
    return number


def _exactly(kind: Any, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{type(value).__name__} where {kind.__name__} belongs")
    return value

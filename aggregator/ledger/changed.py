"""A row of the ledger with some fields changed, for the rows that every transaction changes.

`dataclasses.replace` asks each field for its value and builds the row anew: 14 us for the 24 fields of a
state, four times a transaction in every member, a good part of what a signature costs. Here the fields are
copied in one go. It is for classes without ``slots`` and without ``__post_init__``.
"""

from __future__ import annotations

from typing import Any, TypeVar

Row = TypeVar("Row")


def changed(row: Row, **changes: Any) -> Row:
    """``dataclasses.replace(row, **changes)``."""
    assert row.__dict__.keys() >= changes.keys(), changes.keys() - row.__dict__.keys()
    new: Row = object.__new__(type(row))
    new.__dict__.update(row.__dict__, **changes)
    return new

"""`changed` does what `dataclasses.replace` does, on every class that it is used on."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from aggregator.ledger.changed import changed
from aggregator.ledger.state import Entry, State
from aggregator.ledger.tasks.open_records import OpenTask
from tests.ledger.world import World

WORLD = World.new()
OID = WORLD.place()
ENTRY = WORLD.state.table[OID]


@pytest.mark.parametrize("row", [WORLD.state, ENTRY, ENTRY.task], ids=lambda row: type(row).__name__)
def test_every_field_can_be_changed_and_the_others_and_the_old_row_stay(
    row: State | Entry | OpenTask,
) -> None:
    before = dataclasses.replace(row)  # type: ignore[type-var]
    for field in dataclasses.fields(row):
        sentinel: Any = object()
        assert changed(row, **{field.name: sentinel}) == dataclasses.replace(row, **{field.name: sentinel})
    assert row == before and changed(row) == row and changed(row) is not row
    assert not hasattr(type(row), "__post_init__"), "`changed` would pass it by"
    with pytest.raises(dataclasses.FrozenInstanceError):
        changed(row).history = ()  # type: ignore[misc]
    with pytest.raises(AssertionError):
        changed(row, nonsense=1)

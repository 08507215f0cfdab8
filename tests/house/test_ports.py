"""Two parts of one network never end up at one address without either of them noticing."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtn.devnet.anvil import free_ports
from offchain.serving import CannotServe
from offchain.storage import EmbeddedStore, Gateway


def test_the_ports_of_a_network_differ() -> None:
    """Drawn one by one, one network in seventy gave one port to two processes."""
    for _ in range(300):
        drawn = free_ports(20)
        assert len(set(drawn)) == len(drawn)


def test_a_second_gateway_at_an_address_is_refused_before_the_first_has_started(tmp_path: Path) -> None:
    first = Gateway(EmbeddedStore(tmp_path / "first"))
    try:
        with pytest.raises(CannotServe, match="choose another port"):
            Gateway(EmbeddedStore(tmp_path / "second"), port=int(first.url.rpartition(":")[2]))
    finally:
        first.stop()

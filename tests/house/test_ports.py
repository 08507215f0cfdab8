"""Two parts of one network never end up at one address without either of them noticing."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtn.devnet.ports import KEEPS, NoPorts, Ports
from offchain.serving import CannotServe
from offchain.storage import EmbeddedStore, Gateway


def test_the_ports_of_a_network_differ() -> None:
    """Drawn one by one, one network in seventy gave one port to two processes."""
    for _ in range(300):
        with Ports() as ports:
            drawn = ports.take(20)
        assert len(set(drawn)) == len(drawn)


@pytest.mark.skipif(not KEEPS, reason="only Linux lets a server listen beside who keeps its port")
def test_what_one_network_has_drawn_no_other_draws_until_it_is_down(tmp_path: Path) -> None:
    """Another's process had taken a port before the one that it was drawn for had started."""
    with Ports() as first, Ports() as second:
        (mine, *others) = first.take(250)
        assert not {mine, *others} & set(second.take(250)), "five would be the same by chance"
        gateway = Gateway(EmbeddedStore(tmp_path / "served"), port=mine)
        gateway.stop()
        again = Gateway(EmbeddedStore(tmp_path / "again"), port=mine)
        assert mine not in second.take(100)
        again.stop()


def test_more_ports_than_there_are_cannot_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtn.devnet.ports.RANGE", range(20_000, 20_003))
    with Ports() as ports, pytest.raises(NoPorts, match="4 free ports"):
        ports.take(4)


def test_a_second_gateway_at_an_address_is_refused_before_the_first_has_started(tmp_path: Path) -> None:
    first = Gateway(EmbeddedStore(tmp_path / "first"))
    try:
        with pytest.raises(CannotServe, match="choose another port"):
            Gateway(EmbeddedStore(tmp_path / "second"), port=int(first.url.rpartition(":")[2]))
    finally:
        first.stop()

"""A pool's member gets ready for what its leader trains, while it is in training."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dtn.devnet.ports import free_port
from offchain.config import ProviderConfig
from offchain.provider.pool import PoolMember, PoolSettings
from offchain.provider.pool.desk import Desk
from protocol.crypto import Key
from tests.pool.one_order import Ledger, ledger

PATIENCE_S = 120.0


@contextmanager
def pool(stands: Ledger, folder: Path) -> Iterator[tuple[Desk, PoolMember]]:
    """A leader's desk and its one member."""
    leader, other = Key.generate(), Key.generate()
    settings = PoolSettings(
        leader="0x" + leader.address.hex(),
        members=("0x" + other.address.hex(),),
        url=f"http://127.0.0.1:{free_port()}",
    )
    desk = Desk(settings, leader)
    desk.start()
    try:
        member = PoolMember(ProviderConfig.read(stands.write_actor(folder / "member", other)), settings)
        try:
            yield desk, member
        finally:
            member.close()
    finally:
        desk.stop()


@pytest.mark.parametrize("phase", ["training", "reveal"])
def test_a_member_is_ready_for_an_order_in_training_and_for_no_other(
    tmp_path: Path, phase: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A later phase's deadline is not the training's."""
    with ledger(tmp_path / "network") as stands, pool(stands, tmp_path) as (desk, member):
        (oid,) = stands.oids
        stands.details[oid]["phase"] = phase
        desk.announce(oid)
        deadline = time.monotonic() + PATIENCE_S
        while not (desk.ready(oid) or "not in training" in caplog.text):
            assert time.monotonic() < deadline, "waited in vain"
            member.act()
            time.sleep(0.05)
        assert bool(desk.ready(oid)) == (phase == "training")

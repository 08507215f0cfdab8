"""An aggregator's keys are changed while the committee orders claims: its link key, then its account.

Never more than one member is away, and nobody else does anything about it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from eth_utils.address import to_checksum_address

from aggregator.config import AggregatorConfig
from aggregator.links.errors import LinkBroken
from aggregator.links.keys import LinkKey
from aggregator.links.links import Peer
from dtn.devnet import Devnet
from dtn.devnet.ports import Ports
from protocol.crypto import Key
from protocol.keyfile import write_private
from protocol.parameters import TOKEN_WEI
from protocol.roles import Role
from tests.end_to_end.driving import Driver, dtn, dtn_json, until
from tests.end_to_end.test_operations import AGGREGATORS
from tests.end_to_end.test_upgrade import SHAPE, Load, away
from tests.links.peers import Stranger

pytestmark = pytest.mark.end_to_end

NEWCOMER = "aggregator-5"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    home = tmp_path_factory.mktemp("home")
    with Devnet(home / "devnet").lifetime(SHAPE) as devnet:
        devnet.children.stop(["provider-1"])
        yield Driver(devnet, home)


@pytest.fixture
def load(driver: Driver) -> Iterator[Load]:
    oid = driver.put(train_s=600)
    until("the order is in training", lambda: driver.order(oid), driver.devnet)
    with Load(driver, oid) as running:
        running.goes_on(driver)
        yield running
        running.goes_on(driver)


def config_of(driver: Driver, name: str) -> AggregatorConfig:
    return AggregatorConfig.read(driver.devnet.config(name))


def status(driver: Driver, name: str) -> dict[str, Any]:
    """What an aggregator says of itself, whoever else is running; nothing while it is down."""
    try:
        return dict(httpx.get(f"http://127.0.0.1:{config_of(driver, name).api_port}/v1/status").json())
    except httpx.HTTPError:
        return {}


def welcomed(driver: Driver, key: LinkKey, name: str, expected: bytes) -> bool:
    """Whether the aggregator lets ``key`` in, and proves ``expected`` itself."""
    peer = Peer(index=0, address=config_of(driver, name).link_listen, link_key=expected)

    async def knock() -> bool:
        try:
            (await Stranger.knock(key, peer)).close()
        except (LinkBroken, OSError):
            return False
        return True

    return asyncio.run(knock())


def test_a_link_key_is_changed_by_one_transaction_while_the_member_runs(driver: Driver, load: Load) -> None:
    name, other = AGGREGATORS[:2]
    config = str(driver.devnet.config(name))
    mine, theirs = (LinkKey.derive(driver.devnet.key(each)) for each in (name, other))
    assert welcomed(driver, mine, other, theirs.public) and welcomed(driver, theirs, name, mine.public)
    done = dtn_json("aggregator", "rotate-link", "--config", config, home=driver.folder)
    fresh = LinkKey.derive(driver.devnet.key(name), 1)
    assert (done["before"], done["link_key"]) == ("0x" + mine.public.hex(), "0x" + fresh.public.hex())
    until("the member proves it", lambda: welcomed(driver, theirs, name, fresh.public), driver.devnet)
    until("the others expect it", lambda: welcomed(driver, fresh, other, theirs.public), driver.devnet)
    assert not welcomed(driver, mine, other, theirs.public), "the old key opens no door"
    # One of the others stops: now the quorum needs the member under its new key, on links of both directions.
    load.goes_on(driver)
    with away(driver, AGGREGATORS[3]):
        load.goes_on(driver)
    # A restart finds the key in the registry, and so does more stake: nothing on this machine says which.
    with away(driver, name):
        load.goes_on(driver)
    with away(driver, AGGREGATORS[3]):
        load.goes_on(driver)
    dtn_json("aggregator", "register", "--config", config, "--stake", "1000", home=driver.folder)
    chain = driver.devnet.chain(name)
    assert chain.endpoint_of(driver.devnet.key(name).address)[1] == fresh.public
    doctor = dtn("doctor", "--config", config, "--json", home=driver.folder)
    assert '"a member, registered at' in doctor.stdout


def newcomer(driver: Driver) -> Key:
    """A new account with its own configuration, ports and data, and the tokens that it stakes."""
    devnet, key = driver.devnet, Key.generate()
    write_private(devnet.folder / "keys" / f"{NEWCOMER}.key", key.secret.hex() + "\n")
    with Ports() as ports:
        first, second = ports.take(2)
    devnet._write_config(NEWCOMER, (first, second), devnet.network().rpc_url, SHAPE)
    devnet.fund(key.address, 1000 * TOKEN_WEI)
    return key


def test_another_account_takes_a_members_place_and_the_old_one_takes_its_stake_home(
    driver: Driver, load: Load
) -> None:
    devnet, old = driver.devnet, AGGREGATORS[2]
    leaving, key = devnet.key(old).address, newcomer(driver)
    config = str(devnet.config(NEWCOMER))
    dtn_json("aggregator", "register", "--config", config, home=driver.folder)

    owner = devnet.chain("deployer")
    members = [member for member in owner.members() if member != leaving]
    appointed = [to_checksum_address(member) for member in sorted([*members, key.address])]
    owner.send(owner.committee.functions.change(appointed, 3), "another account in a member's place")
    devnet.start(NEWCOMER, SHAPE)
    until(
        "the newcomer is a member",
        lambda: status(driver, NEWCOMER).get("committeeEpoch") == 2 and status(driver, NEWCOMER)["active"],
        devnet,
    )
    until("the old one is none", lambda: status(driver, old).get("member", 0) is None, devnet)
    assert status(driver, NEWCOMER)["member"] is not None
    load.goes_on(driver)

    retired = str(devnet.config(old))
    devnet.children.stop([old])
    load.goes_on(driver)
    devnet.children.stop([AGGREGATORS[3]])
    load.goes_on(driver)  # the newcomer's vote is needed for every quorum now
    dtn_json("aggregator", "unregister", "--config", retired, home=driver.folder)
    devnet.start(AGGREGATORS[3], SHAPE)
    until(
        "the stake is released",
        lambda: devnet.chain(old).stake_of(leaving, Role.AGGREGATOR)[2] == 1000 * TOKEN_WEI,
        devnet,
    )
    dtn_json("aggregator", "withdraw", "--config", retired, home=driver.folder)
    assert devnet.chain(old).balance_of(leaving) == 2000 * TOKEN_WEI

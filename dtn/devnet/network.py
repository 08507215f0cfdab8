"""Building up and taking down a local network (``dtn devnet``)."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

import httpx
from eth_account import Account
from eth_utils.address import to_checksum_address
from web3 import HTTPProvider, Web3

from aggregator.links.keys import LinkKey
from dtn.devnet.anvil import DevnetError, find_anvil
from dtn.devnet.ports import Ports
from dtn.devnet.processes import Child, Children, interruptible, wait_until
from offchain.network import NetworkFile
from protocol.chain.client import ChainClient
from protocol.chain.dao import Dao
from protocol.chain.deployment import AddressBook, Governance, deploy, make_plan, settlement_threshold
from protocol.crypto import Key
from protocol.keyfile import read_key, write_private
from protocol.parameters import TOKEN_WEI
from protocol.roles import Role

COIN_WEI: Final = 1000 * 10**18
START_TIMEOUT_S: Final = 60.0
START_MEMBER_S: Final = 8.0
"""More for each aggregator: thirty of them on two cores take minutes."""

PARAMETERS: Final = {
    "confirmations": 1,
    "reveal_s": 30,
    "validation_reveal_s": 20,
    "challenge_reveal_s": 20,
    "verdict_s": 20,
    "verdict_reveal_s": 20,
    "appeal_s": 5,
    "update_s": 3,
    "unbonding_s": 5,
    "reclaim_s": 600,
}
"""What differs from the defaults: everything is fast, nothing is worth anything."""

FUNDS: Final = {
    "client": 10_000,
    "provider": 1_000,
    "validator": 2_000,
    "verifier": 1_000,
    "aggregator": 2_000,
}
"""Tokens that each participant starts with."""


GOVERNANCE: Final = Governance(
    voting_delay_s=2,
    voting_period_s=120,
    late_quorum_s=5,
    timelock_s=5,
    proposal_threshold_wei=TOKEN_WEI,
)
"""A vote takes two minutes: enough to type it, or for a busy machine to start a few commands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Who takes part."""

    aggregators: int = 4
    threshold: int | None = None
    """How many aggregators sign a settlement; all but a third if not said."""
    providers: int = 2
    validators: int = 2
    verifiers: int = 1
    governed: bool = False
    """Whether a DAO decides, with the client voting for the whole supply; else the deployer does."""
    parameters: dict[str, int] = field(default_factory=dict)
    """Protocol parameters that differ from the local network's."""
    extra: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Per process name, further lines of its TOML file."""
    commands: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Per process name, what to run instead of ``dtn ROLE run`` (``--config FILE`` is appended)."""

    def names(self) -> list[str]:
        """Process names of all participants, the client last."""
        counts = (
            ("aggregator", self.aggregators),
            ("provider", self.providers),
            ("validator", self.validators),
            ("verifier", self.verifiers),
        )
        return [f"{role}-{index}" for role, count in counts for index in range(1, count + 1)] + ["client"]


def role_of(name: str) -> str:
    """The role in a process name."""
    return name.partition("-")[0]


class Devnet:
    """The local network in one folder."""

    chain_id: ClassVar[int] = 31337

    def __init__(self, folder: Path, say: Callable[[str], None] = lambda text: None) -> None:
        self.folder = folder
        self.children = Children(folder)
        self.gas: dict[str, list[int]] = {}
        self._say = say
        self._ports = Ports()

    # Facts -----------------------------------------------------------------------------------------

    @property
    def network_file(self) -> Path:
        """The file that ``--network`` takes."""
        return self.folder / "network.json"

    def config(self, name: str) -> Path:
        """A participant's TOML file."""
        return self.folder / "roles" / f"{name}.toml"

    def key(self, name: str) -> Key:
        """A participant's key."""
        return read_key(self._key_file(name))

    def network(self) -> NetworkFile:
        """Where this network is; raises if it was never started."""
        return NetworkFile.read(self.network_file)

    def names(self) -> dict[str, str]:
        """Account to process name, for people."""
        return {
            "0x" + self.key(path.stem).address.hex(): path.stem
            for path in sorted((self.folder / "keys").glob("*.key"))
        }

    def running(self) -> dict[str, Child]:
        """Processes that are alive."""
        return {name: child for name, child in self.children.all().items() if child.find() is not None}

    def chain(self, name: str) -> ChainClient:
        """The contracts as a participant uses them."""
        file = self.network()
        return ChainClient(Web3(HTTPProvider(file.rpc_url)), file.address_book, self.key(name))

    # Up --------------------------------------------------------------------------------------------

    def up(self, shape: Shape) -> None:
        """Start everything and wait until it answers; on failure nothing is left running.

        Raises:
            DevnetError: it runs already, or a part did not start; with the end of its log.
        """
        if self.running():
            raise DevnetError(
                "a local network is running already; see `dtn devnet status`, or `dtn devnet down`"
            )
        try:
            settlement_threshold(shape.aggregators, shape.threshold)
        except ValueError as reason:
            raise DevnetError(f"no committee for such a network: {reason}") from reason
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)
        with interruptible():
            try:
                self._start(shape)
            except BaseException:
                self.down()
                raise

    def _start(self, shape: Shape) -> None:
        rpc_url = self._start_chain()
        web3 = Web3(HTTPProvider(rpc_url))
        keys = {name: self._make_key(name) for name in [*shape.names(), "deployer", "treasury"]}
        self._fund_gas(web3, keys)
        self._say("deploying the contracts")
        book = self.deploy_contracts(web3, shape, keys)
        drawn = self._ports.take(2 * len(shape.names()))
        ports = dict(zip(shape.names(), zip(drawn[::2], drawn[1::2], strict=True), strict=True))
        file = NetworkFile(
            rpc_url=rpc_url,
            address_book=book,
            aggregators=tuple(
                f"http://127.0.0.1:{ports[name][1]}"
                for name in shape.names()
                if role_of(name) == "aggregator"
            ),
        )
        self.network_file.write_text(file.model_dump_json(indent=2))
        book.write(self.folder / "addresses.json")
        for name in shape.names():
            self._write_config(name, ports[name], rpc_url, shape)
        self._say("funding and registering the participants")
        self._register(web3, book, shape, keys, ports)
        self._say(f"starting {len(shape.names())} participants")
        for name in shape.names():
            self.start(name, shape)
        self._await_aggregators(file)

    def _start_chain(self) -> str:
        (port,) = self._ports.take(1)
        command = [find_anvil(), "--host", "127.0.0.1", "--port", str(port), "--chain-id", str(self.chain_id)]
        command += [
            "--block-time",
            "1",
            "--mixed-mining",
            "--accounts",
            "1",
            "--quiet",
            "--hardfork",
            "prague",
        ]
        child = self.children.start("chain", command)
        web3 = Web3(HTTPProvider(f"http://127.0.0.1:{port}"))
        if not wait_until(lambda: web3.is_connected() or child.find() is None, 15) or child.find() is None:
            raise DevnetError(f"Anvil did not start: {self.children.tail('chain')}")
        return f"http://127.0.0.1:{port}"

    def _make_key(self, name: str) -> Key:
        key = Key.generate()
        write_private(self._key_file(name), key.secret.hex() + "\n")
        return key

    def _key_file(self, name: str) -> Path:
        return self.folder / "keys" / f"{name}.key"

    def _fund_gas(self, web3: Web3, keys: dict[str, Key]) -> None:
        for key in keys.values():
            address = to_checksum_address(key.address)
            web3.provider.make_request("anvil_setBalance", [address, hex(COIN_WEI)])  # type: ignore[arg-type]

    def deploy_contracts(self, web3: Web3, shape: Shape, keys: Mapping[str, Key]) -> AddressBook:
        """Put the contracts on the chain; the deployer gets all tokens, and decides unless a DAO does."""
        deployer = keys["deployer"]
        members = [key.address for name, key in keys.items() if role_of(name) == "aggregator"]
        plan = make_plan(
            owner=None if shape.governed else deployer.address,
            governance=GOVERNANCE if shape.governed else None,
            guardian=keys["treasury"].address,
            holder=deployer.address,
            treasury=keys["treasury"].address,
            members=members,
            threshold=shape.threshold,
            overrides={**PARAMETERS, **shape.parameters},
        )
        return deploy(web3, Account.from_key(deployer.secret), plan)

    def _register(
        self,
        web3: Web3,
        book: AddressBook,
        shape: Shape,
        keys: dict[str, Key],
        ports: dict[str, tuple[int, int]],
    ) -> None:
        bank = ChainClient(web3, book, keys["deployer"])
        for name in shape.names():
            amount = FUNDS[role_of(name)] * TOKEN_WEI
            transfer = bank.token.functions.transfer(to_checksum_address(keys[name].address), amount)
            self._spent("transfer", bank.send(transfer, f"funding {name}"))

        def register(name: str) -> None:
            chain = ChainClient(web3, book, keys[name])
            role = Role[role_of(name).upper()]
            endpoint, link_key = "", bytes(32)
            if role is Role.AGGREGATOR:
                link, api = ports[name]
                endpoint = f"tcp://127.0.0.1:{link},http://127.0.0.1:{api}"
                link_key = LinkKey.derive(keys[name]).public
            # Half of the funds stay liquid; the other half backs the work.
            amount = FUNDS[role_of(name)] * TOKEN_WEI // 2
            self._spent("register", chain.register(role, amount, endpoint, link_key))

        if shape.governed:
            Dao(bank).delegate(keys["client"].address)
        staking = [name for name in shape.names() if name != "client"]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(register, staking))

    def _spent(self, kind: str, receipt: Any) -> None:
        self.gas.setdefault(kind, []).append(int(receipt["gasUsed"]))

    def _write_config(self, name: str, ports: tuple[int, int], rpc_url: str, shape: Shape) -> None:
        lines: dict[str, Any] = {"key_file": f"../keys/{name}.key", "data_dir": f"../data/{name}"}
        if role_of(name) == "aggregator":
            lines |= {
                "rpc_url": rpc_url,
                "address_book": "../addresses.json",
                "link_listen": f"tcp://127.0.0.1:{ports[0]}",
                "api_port": ports[1],
            }
        else:
            lines |= {"network": "../network.json", "gateway_port": ports[1], "poll_s": 0.5}
        if role_of(name) == "provider":
            # Providers of one machine differ, or they would all train the same model.
            index = int(name.partition("-")[2])
            lines |= {"seed": index, "learning_rate": round(0.004 / index, 5), "patience_steps": 4000}
        lines |= shape.extra.get(name, {})
        path = self.config(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items()))

    def start(self, name: str, shape: Shape | None = None) -> None:
        """Start (or start again) one participant's process."""
        known = self.children.all().get(name)
        if known is not None and known.find() is not None:
            raise DevnetError(f"{name} is running already")
        command = known.command if known is not None else self._command(name, shape or Shape())
        # Every process sees few cores: leave XLA and BLAS one thread each, or they fight over them.
        environment = {
            "OMP_NUM_THREADS": "1",
            "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
            "JAX_PLATFORMS": "cpu",
            "DTN_COMPILED": os.environ.get("DTN_COMPILED", str(self.folder.parent / "compiled")),
        }
        self.children.start(name, command, environment)

    def _command(self, name: str, shape: Shape) -> tuple[str, ...]:
        base = shape.commands.get(name, (sys.executable, "-m", "dtn", role_of(name), "run"))
        return (*base, "--config", str(self.config(name)))

    def _await_aggregators(self, file: NetworkFile) -> None:
        """Wait until the committee has taken in the registrations."""

        def ready(url: str) -> bool:
            with contextlib.suppress(httpx.HTTPError, KeyError, ValueError):
                return httpx.get(f"{url}/v1/status", timeout=2).json()["executed"] > 0
            return False

        def settled() -> bool:
            self.require_alive()
            return all(ready(url) for url in file.aggregators)

        patience_s = START_TIMEOUT_S + START_MEMBER_S * len(file.aggregators)
        if not wait_until(settled, patience_s, 0.2):
            raise DevnetError(
                f"the aggregators did not start in {patience_s:.0f} s: "
                + self.children.tail("aggregator-1", 3)
            )

    def require_alive(self) -> None:
        """Raise `DevnetError` with the end of its log if a process ended by itself."""
        for name, child in self.children.all().items():
            if child.find() is None:
                raise DevnetError(f"{name} ended: {self.children.tail(name, 3)}")

    def fund(self, account: bytes, amount_wei: int) -> None:
        """Give any account tokens and gas money, as a faucet would.

        Raises:
            DevnetError: nothing runs. ChainError: the deployer holds less than that.
        """
        if "chain" not in self.running():
            raise DevnetError("no local network is running; start one with `dtn devnet up`")
        bank = self.chain("deployer")
        address = to_checksum_address(account)
        bank.web3.provider.make_request("anvil_setBalance", [address, hex(COIN_WEI)])  # type: ignore[arg-type]
        bank.send(bank.token.functions.transfer(address, amount_wei), f"funding {address}")

    # Down ------------------------------------------------------------------------------------------

    def down(self) -> None:
        """End every process of this network."""
        self.children.stop()
        self._ports.release()

    @contextlib.contextmanager
    def lifetime(self, shape: Shape) -> Iterator[Devnet]:
        """Up, and down whatever happens: an end by signal included."""
        with interruptible():
            self.up(shape)
            try:
                yield self
            finally:
                self.down()

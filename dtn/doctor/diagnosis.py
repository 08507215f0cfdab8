"""All checks of one node in their order; what a failed one leaves unknown is skipped, and says so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dtn.configuration import RoleName, kind_of
from dtn.doctor import chain as on_chain
from dtn.doctor import machine
from dtn.doctor import network as on_network
from dtn.doctor.finding import Finding, failed, ok, skipped
from offchain.committee import read_committee
from offchain.network import NetworkError, NetworkFile
from protocol.chain.client import ChainClient, connect
from protocol.chain.deployment import AddressBook
from protocol.crypto import Key
from protocol.errors import ChainError, ProtocolError, SignerError
from protocol.roles import Role
from protocol.signer import Signer


def diagnose(role: RoleName, path: Path) -> Iterator[Finding]:
    """Look at the node that the configuration at ``path`` describes, running or not."""
    try:
        config: Any = kind_of(role).read(path)
    except ProtocolError as reason:
        yield failed("configuration", str(reason), f"correct it, or write one with `dtn init {role}`")
        return
    yield ok("configuration", f"{path} is that of a {role}")
    finding, key = check_key(role, config)
    yield finding
    yield machine.check_data_dir(config.data_dir)
    yield machine.check_disk(config.data_dir)
    yield machine.check_versions()
    if role in ("provider", "validator", "verifier"):
        yield machine.check_devices(getattr(config, "platform", None))
    finding, file = check_network_file(role, config)
    yield finding
    chain = None
    if file is not None:
        finding, chain = check_chain(file.rpc_url, file.address_book)
        yield finding
    if chain is not None and file is not None:
        yield on_chain.check_contracts(chain, file.address_book)
        yield on_chain.check_head(chain, time.time())
        if role == "aggregator":
            file = with_members(file, chain)
    if chain is None or key is None:
        yield skipped("account", "its stake and gas money need the chain and the key")
    else:
        yield from check_account(role, config, chain, key)
    if file is not None:
        answers = on_network.ask_all(file.aggregators)
        yield on_network.check_answers(answers, file.address_book)
        yield on_network.check_agreement(answers)
        yield on_network.check_clock(answers)
        yield on_network.check_protocol(answers)
    if role == "aggregator":
        yield from check_doors(config, key)
    else:
        # A client's links stand in its orders, so they must outlive a restart.
        fixed = role == "client"
        where = (config.gateway_host, config.gateway_port, config.public_url)
        yield machine.check_gateway(*where, config.data_dir / "store", fixed)


def check_key(role: RoleName, config: Any) -> tuple[Finding, Signer | None]:
    """Whether the key can be used, or the external signer of a client."""
    try:
        if role == "client" and config.signer_url is not None:
            signer = config.signer()
            signer.check()
            return ok("signer", f"has the account 0x{signer.address.hex()}"), signer
        key: Key = config.key()
    except SignerError as reason:
        return failed("signer", str(reason), 'see docs/operating.md, "External signers"'), config.signer()
    except ProtocolError as reason:
        do = 'see docs/operating.md, "Keys"; `dtn key new` makes one'
        return failed("key", str(reason), do), None
    return ok("key", f"account 0x{key.address.hex()}"), key


def check_network_file(role: RoleName, config: Any) -> tuple[Finding, NetworkFile | None]:
    """Whether it is known where the network is."""
    name = "address book" if role == "aggregator" else "network file"
    try:
        if role == "aggregator":
            book = config.book()
            return ok(name, f"chain {book.chain_id}"), NetworkFile(
                rpc_url=config.rpc_url, address_book=book, aggregators=()
            )
        file = NetworkFile.read(config.network)
    except ProtocolError as reason:
        return failed(name, str(reason), "get it from whoever deployed the network"), None
    return ok(name, f"chain {file.address_book.chain_id}, {len(file.aggregators)} aggregators"), file


def check_chain(rpc_url: str, book: AddressBook) -> tuple[Finding, ChainClient | None]:
    """Whether a node of the right chain answers."""
    try:
        chain = ChainClient(connect(rpc_url, book.chain_id), book)
    except (ChainError, ValueError) as reason:
        return failed("chain", str(reason), "start the node, or correct rpc_url"), None
    return ok("chain", f"{rpc_url} serves chain {book.chain_id}"), chain


def with_members(file: NetworkFile, chain: ChainClient) -> NetworkFile:
    """A network file with the APIs that the committee's members registered."""
    try:
        apis = read_committee(chain).apis
    except (ChainError, NetworkError):
        return file
    return file.model_copy(update={"aggregators": tuple(apis)})


def check_account(role: RoleName, config: Any, chain: ChainClient, key: Signer) -> Iterator[Finding]:
    """What the account has, and needs."""
    yield on_chain.check_coin(chain, key.address)
    if role == "client":
        yield on_chain.check_tokens(chain, key.address)
        return
    yield on_chain.check_stake(chain, key.address, Role[role.upper()], role)
    if role == "aggregator":
        from aggregator.links.keys import LinkKey

        assert isinstance(key, Key), "no external signer is an aggregator's"

        endpoint = f"{config.link_listen},http://{config.api_host}:{config.api_port}"
        yield on_chain.check_membership(
            chain, key.address, endpoint, lambda public: LinkKey.number_of(key, public) is not None
        )


def check_doors(config: Any, key: Signer | None) -> Iterator[Finding]:
    """Whether an aggregator can listen for members and the public, or does already."""
    me = None if key is None else "0x" + key.address.hex()
    where = f"{config.api_host}:{config.api_port}"
    running = False
    try:
        if machine.port_is_free(config.api_host, config.api_port):
            yield ok("api", f"{where} is free, so the aggregator is not running")
        else:
            host = "127.0.0.1" if config.api_host == "0.0.0.0" else config.api_host
            url = f"http://{host}:{config.api_port}"
            answer = on_network.ask_all([url])
            who = on_network.member_accounts(answer).get(url)
            running = me is not None and who == me
            if running or (me is None and who is not None):
                yield ok("api", f"this member serves its API at {where}")
            else:
                do = "end the other program, or choose another api_port"
                yield failed("api", f"something else listens on {where}", do)
    except OSError as reason:
        do = "set api_host to an address of this machine, and an api_port above 1023"
        yield failed("api", f"cannot listen on {where}: {reason.strerror}", do)
    yield check_link(config.link_listen, running)


def check_link(listen: str, running: bool) -> Finding:
    """Whether the other members can connect."""
    do = "write link_listen like tcp://0.0.0.0:7711, with an address of this machine and a free port"
    from aggregator.links.address import parse
    from aggregator.links.errors import LinkError

    try:
        free = machine.port_is_free(*parse(listen))
    except LinkError as reason:
        return failed("link", str(reason), do)
    except OSError as reason:
        return failed("link", f"cannot listen on {listen}: {reason.strerror}", do)
    if free == running:
        what = "nobody listens on {} though the API answers" if running else "something else listens on {}"
        return failed("link", what.format(listen), "restart the aggregator, or choose another link_listen")
    return ok("link", f"{listen} is {'in use by this member' if running else 'free'}")

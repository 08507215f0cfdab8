"""``dtn ROLE run|register|unregister|withdraw`` for every role; ``dtn client run|prepare``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Final, cast

import typer

from dtn.commands import backup, quotes
from dtn.commands.orders import ConfigOption, client_of, gateway_of
from dtn.configuration import RoleName, kind_of
from dtn.output import JsonFlag, console, parse_id, print_json, tokens, wei
from protocol.chain.client import ChainClient, connect
from protocol.chain.deployment import AddressBook
from protocol.errors import ChainError
from protocol.roles import Role
from protocol.signer import Signer
from protocol.transactions import Appeal, IrretrievableReport, data_root

ROLES: Final = ("provider", "validator", "verifier")

Config = Annotated[Path, typer.Option("--config", help="The role's TOML file.", exists=False)]
Amount = Annotated[str | None, typer.Option(help="Tokens; the least allowed (or all of it) if not given.")]


Subject = Annotated[str, typer.Argument(help="The model's MID, or `test-set`.")]

ABANDON_HELP = (
    "Declare the committee gone, if it has not released your stake long after it was due; everybody may then "
    "leave without it."
)


def role_app(name: str) -> typer.Typer:
    """The commands of one actor role."""
    app = typer.Typer(help=f"Work as a {name}.", no_args_is_help=True)
    role = Role[name.upper()]

    if name != "provider":  # whose commands are in `dtn.commands.provider`

        @app.command(help=f"Run a {name} until it is told to stop.")
        def run(config: Config) -> None:
            _actor(name, config).run()

    @app.command(help=f"Stake tokens as {name}.")
    def register(config: Config, stake: Amount = None, as_json: JsonFlag = False) -> None:
        from offchain.network import NetworkFile

        settings = _settings(name, config)
        file = NetworkFile.read(settings.network)
        _register(
            _chain(file.rpc_url, file.address_book, settings.signer()),
            settings.address,
            role,
            stake,
            "",
            bytes(32),
            as_json,
        )

    @app.command(
        help=f"Start to take stake out; it is released after the unbonding time (then `{name} withdraw`)."
    )
    def unregister(config: Config, amount: Amount = None, as_json: JsonFlag = False) -> None:
        chain, account = _chain_of(name, config)
        _unregister(chain, account, role, amount, as_json)

    @app.command(help="Take released stake home.")
    def withdraw(config: Config, as_json: JsonFlag = False) -> None:
        chain, account = _chain_of(name, config)
        _withdraw(chain, account, role, as_json)

    @app.command(help=ABANDON_HELP)
    def abandon(config: Config, as_json: JsonFlag = False) -> None:
        chain, account = _chain_of(name, config)
        _abandon(chain, account, role, as_json)

    @app.command(help="Report a model, or the released test set, that cannot be fetched; locks a stake.")
    def report(oid: str, subject: Subject, config: Config, as_json: JsonFlag = False) -> None:
        _about(IrretrievableReport, name, role, oid, subject, config, as_json)

    @app.command(help="Appeal against a verdict, for a bond: one larger round decides again, for good.")
    def appeal(oid: str, subject: Subject, config: Config, as_json: JsonFlag = False) -> None:
        _about(Appeal, name, role, oid, subject, config, as_json)

    if role is Role.VALIDATOR:
        app.command(name="quote", help="Show what validating an order may bring.")(_quote_validator)
    return app


def _about(
    kind: type[IrretrievableReport] | type[Appeal],
    name: str,
    role: Role,
    oid: str,
    subject: str,
    config: Path,
    as_json: bool,
) -> None:
    """Send a report or an appeal about a model or a test set."""
    from offchain.answers import fetch_detail
    from offchain.network import Network, NetworkFile

    settings = _settings(name, config)
    file = NetworkFile.read(settings.network)
    network, order = Network(file, settings.signer()), parse_id(oid, 32, "an OID")
    if subject == "test-set":
        subject = fetch_detail(network, oid)["order"]["dataRoot"]
    named = parse_id(subject, 32, "a MID")
    network.trust(_chain(file.rpc_url, file.address_book).speaking_committees)
    answer = network.submit(kind, oid=order, subject=named, role=int(role))
    if as_json:
        print_json(answer)
        return
    console.print("accepted; `dtn order` shows what becomes of it")


def _quote_validator(oid: str, config: Config, as_json: JsonFlag = False) -> None:
    parse_id(oid, 32, "an OID")
    network, settings = _network_of("validator", config)
    account = "0x" + settings.address.hex()
    quotes.validator(network, oid, account, settings.v_stake_wei, as_json)


def client_app() -> typer.Typer:
    """The client's daemon, and what a wallet needs before it places an order itself."""
    app = typer.Typer(help="Look after your own orders.", no_args_is_help=True)

    @app.callback()
    def group() -> None:
        """Look after your own orders."""

    @app.command(help="Publish data and release test sets of your orders until told to stop.")
    def run(config: Config) -> None:
        _actor("client", config).run()

    @app.command(help="Try the webhook of the configuration, and make its secret if there is none yet.")
    def webhook(config: Config) -> None:
        from offchain.client.webhooks import Message, Webhooks, make_secret, read_secret
        from offchain.config import InvalidConfig

        settings = _settings("client", config)
        if settings.webhook_url is None:
            raise InvalidConfig(f"{config} names no webhook_url and webhook_secret_file; set both")
        path = settings.webhook_secret_file
        if not path.exists():
            make_secret(path)
            console.print(f"made a secret in {path}: the receiver checks signatures with it", soft_wrap=True)
        hooks = Webhooks(settings.webhook_url, read_secret(path), settings.data_dir / "webhooks")
        said = hooks.post(Message.about("ping", "0x" + bytes(32).hex(), 0, {}, time.time()))
        if said is not None:
            raise InvalidConfig(f"{settings.webhook_url} did not take the message: {said}")
        console.print(f"{settings.webhook_url} took a message signed with {path}", soft_wrap=True)

    @app.command(help="Prepare a task's data for an order that a wallet places (scripts/put.py).")
    def prepare(
        task: Annotated[Path, typer.Argument(help="Task file (YAML); see examples/.")],
        config: ConfigOption = None,
        as_json: JsonFlag = False,
    ) -> None:
        from offchain.client import read_task_file

        client, settings = client_of(config)
        prepared = client.prepare(read_task_file(task), gateway=gateway_of(settings))
        task_hash = "0x" + prepared.document.digest().hex()
        root = "0x" + data_root(prepared.document.fragment_digests()).hex()
        if as_json:
            print_json({"task_link": prepared.link, "task_hash": task_hash, "data_root": root})
            return
        console.print(f"task link {prepared.link}", soft_wrap=True)
        console.print(f"task hash {task_hash}", soft_wrap=True)
        console.print(f"data root {root}", soft_wrap=True)
        console.print("keep `dtn client run` running, and place the order with this account's key")

    return app


def aggregator_app() -> typer.Typer:
    """The aggregator's commands."""
    app = typer.Typer(help="Run a member of the committee.", no_args_is_help=True)

    @app.command(help="Run an aggregator until it is told to stop.")
    def run(config: Config) -> None:
        from aggregator.config import AggregatorConfig
        from aggregator.service import run as serve

        serve(AggregatorConfig.read(config))

    @app.command(help="Stake tokens as aggregator and publish where the others and the public reach it.")
    def register(
        config: Config,
        stake: Amount = None,
        endpoint: Annotated[
            str | None,
            typer.Option(help="tcp://… link address, comma, http://… API; from the file if not given."),
        ] = None,
        as_json: JsonFlag = False,
    ) -> None:
        from aggregator.config import AggregatorConfig
        from aggregator.links.keys import LinkKey

        settings = AggregatorConfig.read(config)
        where = endpoint or f"{settings.link_listen},http://{settings.api_host}:{settings.api_port}"
        key = settings.key()
        chain = _chain(settings.rpc_url, settings.book(), key)
        link_key = LinkKey.registered(key, chain.endpoint_of(key.address)[1])
        _register(chain, key.address, Role.AGGREGATOR, stake, where, link_key.public, as_json)

    @app.command(
        name="rotate-link",
        help="Register another link key; a running aggregator and the others take it up by themselves.",
    )
    def rotate_link(config: Config, as_json: JsonFlag = False) -> None:
        from aggregator.config import AggregatorConfig
        from aggregator.links.keys import LinkKey

        settings = AggregatorConfig.read(config)
        key = settings.key()
        chain = _chain(settings.rpc_url, settings.book(), key)
        endpoint, before = chain.endpoint_of(key.address)
        if not endpoint:
            raise ChainError("this account has registered no endpoint; run `dtn aggregator register` first")
        link_key = LinkKey.after(key, before)
        receipt = chain.set_endpoint(endpoint, link_key.public)
        if as_json:
            tx = "0x" + bytes(receipt["transactionHash"]).hex()
            print_json({"link_key": "0x" + link_key.public.hex(), "before": "0x" + before.hex(), "tx": tx})
            return
        console.print(f"the link key is 0x{link_key.public.hex()} now, and 0x{before.hex()} no more")
        console.print("the members take it up within some ten seconds; see `dtn doctor` and `dtn status`")

    backup.extend(app)

    @app.command(
        help="Start to take stake out; it is released after the unbonding time (then `aggregator withdraw`)."
    )
    def unregister(config: Config, amount: Amount = None, as_json: JsonFlag = False) -> None:
        chain, account = _chain_of_aggregator(config)
        _unregister(chain, account, Role.AGGREGATOR, amount, as_json)

    @app.command(help="Take released stake home.")
    def withdraw(config: Config, as_json: JsonFlag = False) -> None:
        chain, account = _chain_of_aggregator(config)
        _withdraw(chain, account, Role.AGGREGATOR, as_json)

    @app.command(help=ABANDON_HELP)
    def abandon(config: Config, as_json: JsonFlag = False) -> None:
        chain, account = _chain_of_aggregator(config)
        _abandon(chain, account, Role.AGGREGATOR, as_json)

    return app


def _settings(name: str, config: Path) -> Any:
    return kind_of(cast("RoleName", name)).read(config)


def _actor(name: str, config: Path) -> Any:
    settings = _settings(name, config)
    match name:
        case "validator":
            from offchain.validator import Validator

            return Validator(settings)
        case "verifier":
            from offchain.verifier import Verifier

            return Verifier(settings)
        case _:
            from offchain.client import ClientDaemon

            return ClientDaemon(settings)


def _chain(rpc_url: str, book: AddressBook, signer: Signer | None = None) -> ChainClient:
    return ChainClient(connect(rpc_url, book.chain_id), book, signer)


def _network_of(name: str, config: Path) -> tuple[Any, Any]:
    from offchain.network import Network, NetworkFile

    settings = _settings(name, config)
    return Network(NetworkFile.read(settings.network)), settings


def _chain_of(name: str, config: Path) -> tuple[ChainClient, bytes]:
    from offchain.network import NetworkFile

    settings = _settings(name, config)
    file = NetworkFile.read(settings.network)
    signer = settings.signer()
    return _chain(file.rpc_url, file.address_book, signer), signer.address


def _chain_of_aggregator(config: Path) -> tuple[ChainClient, bytes]:
    from aggregator.config import AggregatorConfig

    settings = AggregatorConfig.read(config)
    key = settings.key()
    return _chain(settings.rpc_url, settings.book(), key), key.address


def _register(
    chain: ChainClient,
    account: bytes,
    role: Role,
    stake: str | None,
    endpoint: str,
    link_key: bytes,
    as_json: bool,
) -> None:
    amount = wei(stake) if stake else chain.parameter(role.parameter)
    if not endpoint:
        # One account may hold several roles; registering for another must not move where it is reached.
        endpoint, link_key = chain.endpoint_of(account)
    receipt = chain.register(role, amount, endpoint, link_key)
    _say(as_json, receipt, f"staked {tokens(amount)} tokens as {role.name.lower()}", amount, account)


def _unregister(chain: ChainClient, account: bytes, role: Role, amount: str | None, as_json: bool) -> None:
    bonded, _, _ = chain.stake_of(account, role)
    chosen = wei(amount) if amount else bonded
    if bonded < chosen or not chosen:
        raise ChainError(
            f"0x{account.hex()} has {tokens(bonded)} tokens staked as {role.name.lower()}"
            + (f", not {tokens(chosen)}" if chosen else ": there is nothing to unregister")
        )
    receipt = chain.request_unstake(role, chosen)
    _say(as_json, receipt, f"unbonding {tokens(chosen)} tokens as {role.name.lower()}", chosen, account)


def _withdraw(chain: ChainClient, account: bytes, role: Role, as_json: bool) -> None:
    bonded, unbonding, withdrawable = chain.stake_of(account, role)
    if chain.abandoned():
        withdrawable += bonded + unbonding
    if not withdrawable:
        raise ChainError(
            f"no stake as {role.name.lower()} is released yet: `unregister` first, then wait for the "
            "unbonding time and a settlement"
        )
    receipt = chain.withdraw(role)
    _say(as_json, receipt, f"withdrew {tokens(withdrawable)} tokens", withdrawable, account)


def _abandon(chain: ChainClient, account: bytes, role: Role, as_json: bool) -> None:
    receipt = chain.abandon(account, role)
    _say(as_json, receipt, "the network is abandoned: `withdraw` takes your whole stake home", 0, account)


def _say(as_json: bool, receipt: Any, text: str, amount: int, account: bytes) -> None:
    if as_json:
        print_json(
            {
                "account": "0x" + account.hex(),
                "amount_wei": str(amount),
                "tx": "0x" + bytes(receipt["transactionHash"]).hex(),
                "gas_used": int(receipt["gasUsed"]),
            }
        )
    else:
        console.print(text)

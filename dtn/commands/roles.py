"""The commands that providers, validators and verifiers share: run, stake, report, appeal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from dtn.commands import quotes, staking
from dtn.commands.staking import Amount, Config
from dtn.configuration import RoleName, kind_of
from dtn.output import JsonFlag, console, parse_id, print_json
from protocol.chain.client import ChainClient
from protocol.roles import Role
from protocol.transactions import Appeal, IrretrievableReport

Subject = Annotated[str, typer.Argument(help="The model's MID, or `test-set`.")]


def role_app(name: str) -> typer.Typer:
    """The commands of one actor role."""
    app = typer.Typer(help=f"Work as a {name}.", no_args_is_help=True)
    role = Role[name.upper()]

    if role is not Role.PROVIDER:  # whose `run` is in `dtn.commands.provider`

        @app.command(help=f"Run a {name} until it is told to stop.")
        def run(config: Config) -> None:
            _run(role, config)

    @app.command(help=f"Stake tokens as {name}.")
    def register(config: Config, stake: Amount = None, as_json: JsonFlag = False) -> None:
        chain, account = _chain_of(name, config)
        staking.register(chain, account, role, stake, as_json)

    @app.command(help=staking.unregister_help(name))
    def unregister(config: Config, amount: Amount = None, as_json: JsonFlag = False) -> None:
        chain, account = _chain_of(name, config)
        staking.unregister(chain, account, role, amount, as_json)

    @app.command(help="Take released stake home.")
    def withdraw(config: Config, as_json: JsonFlag = False) -> None:
        chain, account = _chain_of(name, config)
        staking.withdraw(chain, account, role, as_json)

    @app.command(help=staking.ABANDON_HELP)
    def abandon(config: Config, as_json: JsonFlag = False) -> None:
        chain, account = _chain_of(name, config)
        staking.abandon(chain, account, role, as_json)

    @app.command(help="Report a model, or the released test set, that cannot be fetched; locks a stake.")
    def report(oid: str, subject: Subject, config: Config, as_json: JsonFlag = False) -> None:
        _about(IrretrievableReport, name, role, oid, subject, config, as_json)

    @app.command(help="Appeal against a verdict, for a bond: one larger round decides again, for good.")
    def appeal(oid: str, subject: Subject, config: Config, as_json: JsonFlag = False) -> None:
        _about(Appeal, name, role, oid, subject, config, as_json)

    if role is Role.VALIDATOR:
        app.command(name="quote", help="Show what validating an order may bring.")(_quote_validator)
    return app


def _run(role: Role, config: Path) -> None:
    from offchain.config import ValidatorConfig, VerifierConfig
    from offchain.validator import Validator
    from offchain.verifier import Verifier

    if role is Role.VALIDATOR:
        Validator(ValidatorConfig.read(config)).run()
    else:
        Verifier(VerifierConfig.read(config)).run()


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
    from offchain.answers import fetch_order
    from offchain.network import Network, NetworkFile

    settings = _settings(name, config)
    file = NetworkFile.read(settings.network)
    network, order = Network(file, settings.signer()), parse_id(oid, 32, "an OID")
    if subject == "test-set":
        subject = fetch_order(network, oid).order.data_root
    named = parse_id(subject, 32, "a MID")
    network.trust(staking.chain_at(file.rpc_url, file.address_book).speaking_committees)
    answer = network.submit(kind, oid=order, subject=named, role=int(role))
    if as_json:
        print_json(answer)
        return
    console.print("accepted; `dtn order` shows what becomes of it")


def _quote_validator(oid: str, config: Config, as_json: JsonFlag = False) -> None:
    from offchain.network import Network, NetworkFile

    parse_id(oid, 32, "an OID")
    settings = _settings("validator", config)
    network = Network(NetworkFile.read(settings.network))
    account = "0x" + settings.address.hex()
    quotes.validator(network, oid, account, settings.v_stake_wei, as_json)


def _settings(name: str, config: Path) -> Any:
    return kind_of(cast("RoleName", name)).read(config)


def _chain_of(name: str, config: Path) -> tuple[ChainClient, bytes]:
    from offchain.network import NetworkFile

    settings = _settings(name, config)
    file = NetworkFile.read(settings.network)
    signer = settings.signer()
    return staking.chain_at(file.rpc_url, file.address_book, signer), signer.address


validator = role_app("validator")
verifier = role_app("verifier")

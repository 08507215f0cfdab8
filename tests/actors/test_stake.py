"""An actor without the stake that its work needs says so at once and once, with what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from offchain.actor import Actor
from offchain.client import ClientDaemon
from offchain.config import ActorConfig, ClientConfig, ProviderConfig, ValidatorConfig, VerifierConfig
from offchain.provider import Provider
from offchain.validator import Validator
from offchain.verifier import Verifier
from protocol.crypto import Key
from protocol.keyfile import write_private
from protocol.parameters import DEFAULTS, TOKEN_WEI
from protocol.roles import Role
from tests.answers import stake
from tests.chain import Chain, chainless_network, running_chain
from tests.scripts.serving import Answer, serving

ROLES: list[tuple[type[Actor], type[ActorConfig], str]] = [
    (Provider, ProviderConfig, "provider"),
    (Validator, ValidatorConfig, "validator"),
    (Verifier, VerifierConfig, "verifier"),
    (ClientDaemon, ClientConfig, ""),
]
ROUNDS = 3


def live(
    kind: type[Actor],
    config: type[ActorConfig],
    folder: Path,
    stakes: dict[str, int],
    chain: Chain | None = None,
    key: Key | None = None,
) -> None:
    """Run an actor for some rounds on a network without orders, whose ledger knows these stakes of it."""
    rounds = 0

    def answer(path: str) -> Answer:
        nonlocal rounds
        if path.startswith("/v1/accounts/"):
            listed = [stake(role, amount) for role, amount in stakes.items()]
            return 200, json.dumps({"stakes": listed}).encode()
        if path == "/v1/parameters":
            return 200, json.dumps({name: str(value) for name, value in DEFAULTS.values}).encode()
        rounds += 1
        if rounds >= ROUNDS:
            actor.stopping.set()
        return 200, b'{"orders": []}'

    with serving(answer) as url:
        network = chainless_network(url) if chain is None else chain.network_file(url)
        (folder / "network.json").write_text(network.model_dump_json())
        write_private(folder / "actor.key", (key or Key.generate()).secret.hex(), replace=True)
        actor = kind(
            config(
                key_file=folder / "actor.key",
                data_dir=folder / "data",
                network=folder / "network.json",
                poll_s=0.01,
            )
        )
        actor.run()


@pytest.mark.parametrize(("kind", "config", "role"), ROLES[:3], ids=lambda value: str(value))
def test_too_little_stake_is_told_once_with_the_command_to_run(
    kind: type[Actor],
    config: type[ActorConfig],
    role: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    least = DEFAULTS[f"min_stake_{role}_wei"]
    live(kind, config, tmp_path, {role: least - 1, "aggregator": 10 * least})
    (told,) = [record.getMessage() for record in caplog.records if "stake" in record.getMessage()]
    assert f"dtn {role} register" in told and str(least - 1) in told and str(least) in told


@pytest.mark.parametrize(("kind", "config", "role"), ROLES, ids=lambda value: str(value))
def test_who_has_enough_or_needs_none_is_told_nothing(
    kind: type[Actor],
    config: type[ActorConfig],
    role: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    live(kind, config, tmp_path, {role: DEFAULTS[f"min_stake_{role}_wei"]} if role else {})
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    # The chain is silent in this test, and that is told; stake is not.
    assert len(told) == 1 and "believed without proof" in told[0]


def test_a_stake_that_the_ledger_has_yet_to_take_in_is_nothing_to_warn_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = Key.generate()
    with running_chain() as chain:
        chain.fund(key, 500 * TOKEN_WEI).register(Role.PROVIDER, 100 * TOKEN_WEI, "", bytes(32))
        live(Provider, ProviderConfig, tmp_path, {}, chain, key)
        assert "register" not in caplog.text
        live(Validator, ValidatorConfig, tmp_path, {}, chain, key)
        assert "dtn validator register" in caplog.text

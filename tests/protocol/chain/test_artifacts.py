"""The shipped ABIs and bytecode are those of the sources, and of nothing else."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

from protocol.chain.artifacts import CONTRACTS, load
from protocol.errors import ChainError

ROOT = Path(__file__).resolve().parents[3]


def test_artifacts_match_the_sources() -> None:
    compiler = pytest.importorskip("solcx", reason="the ape extra brings the compiler's wrapper")
    assert compiler
    from scripts.compile import compile_contracts

    shipped = files("protocol.chain") / "artifacts"
    for name, text in compile_contracts().items():
        assert (shipped / name).read_text(encoding="utf-8") == text, f"{name} is stale: run 'make compile'"


def test_every_contract_is_shipped_and_nothing_else() -> None:
    sources = {path.stem for path in (ROOT / "contracts").glob("*.sol")}
    shipped = {path.name.removesuffix(".json") for path in (files("protocol.chain") / "artifacts").iterdir()}
    assert sources == shipped == set(CONTRACTS)


@pytest.mark.parametrize("name", CONTRACTS)
def test_an_artifact_deploys_on_any_chain(name: str) -> None:
    artifact = load(name)
    assert re.fullmatch(r"0x[0-9a-f]+", artifact.bytecode), "no library is left to link"
    size_bytes = len(artifact.bytecode) // 2
    assert size_bytes < 2 * 24_576, "EIP-3860 caps the code that creates a contract"


def test_errors_and_events_follow_the_house_rules() -> None:
    for name in CONTRACTS:
        for entry in load(name).abi:
            if entry["type"] == "error" and "__" in entry["name"]:
                assert re.fullmatch(r"[A-Z][A-Za-z]+__[A-Z][A-Za-z]+", entry["name"])


def test_an_unknown_contract_is_named_in_the_error() -> None:
    with pytest.raises(ChainError, match="Governor"):
        load("Governor")

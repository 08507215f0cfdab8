"""The wallet scripts stand alone: another language could follow them with web3 and HTTP only."""

from __future__ import annotations

import ast
import sys

import pytest

from protocol.chain.artifacts import load
from tests.scripts.loading import SCRIPTS, load_script

ALLOWED = {"web3", "eth_account", "requests"}

put, get = load_script("put"), load_script("get")


def signature(item: dict[str, object]) -> str:
    """Name, inputs and outputs of an ABI item, with tuples written out."""

    def types(fields: object) -> str:
        assert isinstance(fields, list)
        return ",".join(
            f"({types(field['components'])})" if field["type"] == "tuple" else field["type"]
            for field in fields
        )

    return f"{item['type']} {item['name']}({types(item['inputs'])})({types(item.get('outputs', []))})"


@pytest.mark.parametrize("name", ["put", "get"])
def test_a_wallet_script_imports_nothing_but_the_standard_library_web3_and_http(name: str) -> None:
    tree = ast.parse((SCRIPTS / f"{name}.py").read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None
            found.add(node.module.partition(".")[0])
    assert found - set(sys.stdlib_module_names) <= ALLOWED


@pytest.mark.parametrize(
    ("written", "contract"),
    [
        (put.ORDER_BOOK_ABI, "OrderBook"),
        (put.PARAMETERS_ABI, "Parameters"),
        (put.TOKEN_ABI, "TrainingToken"),
        ([get._view("settlement", "address")], "OrderBook"),
        ([get._view("registry", "address"), get._view("committee", "address")], "Settlement"),
        ([get._view("members", "address[]")], "Committee"),
        ([get._view("endpointOf", "string", "bytes32", inputs=("address",))], "NodeRegistry"),
    ],
)
def test_the_interfaces_written_out_in_the_scripts_are_the_contracts_own(
    written: list[dict[str, object]], contract: str
) -> None:
    compiled = {signature(item) for item in load(contract).abi if item["type"] in ("function", "event")}
    assert {signature(item) for item in written} <= compiled


def test_every_error_that_put_explains_is_one_that_the_contracts_raise() -> None:
    compiled = {
        f"{item['name']}({','.join(field['type'] for field in item['inputs'])})"
        for contract in ("OrderBook", "TrainingToken")
        for item in load(contract).abi
        if item["type"] == "error"
    }
    assert set(put.ERRORS) <= compiled

"""Compile the contracts into package data: ``python scripts/compile.py [--check]``.

Guarantees: the files under ``protocol/chain/artifacts`` depend on the sources and the pinned compiler
alone (no metadata hash, no paths, sorted keys), so two machines write the same bytes; ``--check``
writes nothing and ends with status 1 when a file differs from what the sources give.

Source: design section 5 ("ABIs and bytecode are shipped as package data").
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

import solcx

from protocol.chain.artifacts import CONTRACTS

ROOT: Final = Path(__file__).resolve().parents[1]
TARGET: Final = ROOT / "protocol" / "chain" / "artifacts"
COMPILER: Final = "0.8.30"
LIBRARY: Final = "@openzeppelin/contracts/"


class CompileError(Exception):
    """The compiler is missing or refuses a source; the message says which and why."""


def compile_contracts() -> dict[str, str]:
    """File name to content of every artifact, compiled from ``contracts/`` as it is now.

    Raises:
        CompileError: the compiler or the library is missing, or a source does not compile.
    """
    os.environ.setdefault("SOLCX_BINARY_PATH", str(ROOT / "build" / "solc"))
    try:
        output = solcx.compile_standard(request(), solc_version=COMPILER)
    except solcx.exceptions.SolcNotInstalled as reason:
        raise CompileError("the compiler is missing: run 'make build/solc' first") from reason
    except solcx.exceptions.SolcError as reason:
        raise CompileError(str(reason)) from reason
    return {f"{name}.json": _artifact(output, name) for name in CONTRACTS}


def request() -> dict[str, Any]:
    """The standard-JSON input: our sources and every library source they reach."""
    return {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in sorted(_sources().items())},
        "settings": {
            "evmVersion": "prague",
            "optimizer": {"enabled": True, "runs": 10_000},
            # Without it the bytecode would carry a hash of every comment.
            "metadata": {"bytecodeHash": "none", "appendCBOR": False},
            "outputSelection": {"*": {"*": ["abi", "evm.bytecode.object"]}},
        },
    }


def _sources() -> dict[str, str]:
    library = ROOT / "node_modules" / LIBRARY
    if not library.is_dir():
        raise CompileError("OpenZeppelin's contracts are missing: run 'make node_modules' first")
    ours = {str(path.relative_to(ROOT)): path for path in (ROOT / "contracts").rglob("*.sol")}
    theirs = {LIBRARY + str(path.relative_to(library)): path for path in library.rglob("*.sol")}
    reached: dict[str, str] = {}
    waiting = list(ours)
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        path = ours.get(name) or theirs.get(name)
        if path is None:
            raise CompileError(f"{name} is imported but does not exist")
        reached[name] = path.read_text(encoding="utf-8")
        waiting.extend(_imports(name, reached[name]))
    return reached


def _imports(name: str, text: str) -> list[str]:
    found = []
    for statement in text.split(";"):
        words = statement.split()
        if "import" not in words or not statement.rstrip().endswith(('"', "'")):
            continue
        target = statement.rstrip()[:-1].rsplit(statement.rstrip()[-1], 1)[1]
        found.append(os.path.normpath(Path(name).parent / target) if target.startswith(".") else target)
    return found


def _artifact(output: dict[str, Any], name: str) -> str:
    compiled = output["contracts"][f"contracts/{name}.sol"][name]
    bytecode = compiled["evm"]["bytecode"]["object"]
    fields = {"abi": compiled["abi"], "bytecode": f"0x{bytecode}"}
    return json.dumps(fields, indent=1, sort_keys=True) + "\n"


def main() -> int:
    """Write the artifacts, or with ``--check`` compare them; 0 when all is well, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    check = parser.parse_args().check
    try:
        built = compile_contracts()
    except CompileError as reason:
        print(f"compile: {reason}", file=sys.stderr)
        return 1
    stale = [name for name, text in built.items() if _shipped(name) != text]
    if check and stale:
        print(f"compile: {', '.join(stale)} differ from contracts/: run 'make compile'", file=sys.stderr)
        return 1
    for name in stale:
        (TARGET / name).write_text(built[name], encoding="utf-8")
    print(f"compile: {len(built)} artifacts, {len(stale)} changed")
    return 0


def _shipped(name: str) -> str | None:
    path = TARGET / name
    return path.read_text(encoding="utf-8") if path.is_file() else None


if __name__ == "__main__":
    raise SystemExit(main())

"""Branch coverage of the contracts, from what the chain really executed.

Every `if`, loop, `require`, ternary, `&&` and `||` of the sources compiles to conditional jumps. `Coverage`
takes the chain's step-by-step traces and notes which way each jump went; a branch is covered when both ways
were seen. Forge's own figure counts no branch of a `require` with a custom error (docs/contracts.md).

Guarantees: only code that equals what is compiled here is counted, hashes of metadata and immutables aside.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import solcx

from scripts import compile as compiling

JUMPI: Final = 0x57
PUSH0: Final = 0x5F
PUSH32: Final = 0x7F
METADATA_KEY: Final = bytes.fromhex("a2646970667358221220")
METADATA: Final = re.compile(re.escape(METADATA_KEY) + b".{32}", re.DOTALL)
CALLS: Final = frozenset({"CALL", "CALLCODE", "DELEGATECALL", "STATICCALL"})
CREATES: Final = frozenset({"CREATE", "CREATE2"})
LOOPS: Final = frozenset({"ForStatement", "WhileStatement", "DoWhileStatement", "YulForLoop"})

Json = dict[str, Any]


class Place(NamedTuple):
    """A stretch of a source file, in bytes."""

    file: str
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Branch:
    """Something in a source that may go either way."""

    place: Place
    line: int
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Code:
    """Bytecode of one contract, its constructor's or its deployed one."""

    name: str
    data: bytes
    """As `_plain` has it."""
    holes: tuple[tuple[int, int], ...]
    """Where immutables are filled in: start and length."""
    jumps: dict[int, Place]
    """Conditional jumps by program counter."""

    def matches(self, code: bytes) -> bool:
        """Whether ``code`` (`_plain`, from the chain) begins with this, immutables aside."""
        if len(code) < len(self.data):
            return False
        found = bytearray(code[: len(self.data)])
        for start, length in self.holes:
            found[start : start + length] = bytes(length)
        return found == self.data


@dataclass(slots=True)
class Coverage:
    """Which way every conditional jump went."""

    branches: tuple[Branch, ...]
    creations: tuple[Code, ...]
    deployed: tuple[Code, ...]
    seen: dict[Place, set[bool]] = field(default_factory=lambda: defaultdict(set))

    @classmethod
    def compiled(cls) -> Coverage:
        """Of the sources as they are now."""
        request = compiling.request()
        request["settings"]["metadata"] = {}
        evm = ["bytecode", "deployedBytecode"]
        request["settings"]["outputSelection"] = {"*": {"": ["ast"], "*": [f"evm.{name}" for name in evm]}}
        output = solcx.compile_standard(request, solc_version=compiling.COMPILER)
        files = {source["id"]: name for name, source in output["sources"].items()}
        codes: dict[str, list[Code]] = {name: [] for name in evm}
        branches = []
        for name, source in sorted(output["sources"].items()):
            if not name.startswith("contracts/"):
                continue
            text = request["sources"][name]["content"].encode()
            branches += list(branches_of(name, text, source["ast"]))
            for contract, compiled in output["contracts"].get(name, {}).items():
                for kind in evm:
                    if compiled["evm"][kind]["object"]:
                        codes[kind].append(_code(contract, compiled["evm"][kind], files))
        jumps = {place for kind in evm for code in codes[kind] for place in code.jumps.values()}
        assert jumps >= {branch.place for branch in branches}, "a branch without a jump cannot be seen"
        return cls(tuple(branches), tuple(codes["bytecode"]), tuple(codes["deployedBytecode"]))

    def follow(
        self, steps: list[Json], to: bytes | None, data: bytes, code_at: Callable[[bytes], bytes]
    ) -> None:
        """Take in one transaction or call: its steps, whom it called, and with what."""
        running = [self._find(self.deployed, code_at(to)) if to else self._find(self.creations, data)]
        for step, after in itertools.pairwise(steps):
            depth = int(step["depth"])
            del running[depth:]
            code = running[-1]
            if step["op"] == "JUMPI" and code is not None and int(after["depth"]) == depth:
                place = code.jumps.get(int(step["pc"]))
                if place is not None:
                    self.seen[place].add(int(after["pc"]) != int(step["pc"]) + 1)
            if int(after["depth"]) > depth:
                called = None
                if step["op"] in CALLS:
                    address = int(step["stack"][-2], 16).to_bytes(32, "big")[-20:]
                    called = self._find(self.deployed, code_at(address))
                running.append(called)

    @staticmethod
    def _find(codes: tuple[Code, ...], data: bytes) -> Code | None:
        found = _plain(data)
        return next((code for code in codes if code.matches(found)), None)

    def uncovered(self) -> list[Branch]:
        """Branches that went one way only, or none."""
        return [branch for branch in self.branches if len(self.seen.get(branch.place, ())) < 2]

    def report(self) -> str:
        """A line per branch that is not covered, then the sums, as JSON in the last line."""
        missing = self.uncovered()
        lines = []
        for branch in missing:
            ways = self.seen.get(branch.place, set())
            said = "one way only" if ways else "never reached"
            lines.append(f"{branch.place.file}:{branch.line}: {branch.kind} {said}: {branch.text}")
        total = len(self.branches)
        sums = {
            "branches": total,
            "covered": total - len(missing),
            "percent": round(100 * (total - len(missing)) / total, 1),
        }
        return "\n".join([*lines, json.dumps(sums)])


def branches_of(file: str, text: bytes, node: Any) -> Iterator[Branch]:
    """Every branch in a syntax tree of the compiler's."""
    if isinstance(node, list):
        for each in node:
            yield from branches_of(file, text, each)
    if not isinstance(node, dict):
        return
    kind = _kind(node)
    if kind is not None:
        start, length, _ = (int(part) for part in node["src"].split(":"))
        words = b" ".join(text[start : start + length].split()).decode()
        yield Branch(Place(file, start, length), text[:start].count(b"\n") + 1, kind, words[:70])
    for value in node.values():
        yield from branches_of(file, text, value)


def _kind(node: Json) -> str | None:
    match node.get("nodeType"):
        case "IfStatement" | "YulIf":
            return "if"
        case "Conditional":
            return "ternary"
        case "BinaryOperation" if node["operator"] in ("&&", "||"):
            return str(node["operator"])
        case "FunctionCall" if node["expression"].get("name") == "require":
            return "require"
        case other if other in LOOPS:
            return "loop"
    return None


def _code(name: str, compiled: Json, files: dict[int, str]) -> Code:
    data = _plain(bytes.fromhex(compiled["object"]))
    holes = tuple(
        (int(hole["start"]), int(hole["length"]))
        for places in compiled.get("immutableReferences", {}).values()
        for hole in places
    )
    jumps = {}
    for (pc, op), place in zip(_instructions(data), _places(compiled["sourceMap"], files), strict=False):
        if op == JUMPI and place is not None:
            jumps[pc] = place
    return Code(name, data, holes, jumps)


def _plain(code: bytes) -> bytes:
    """Code without the hashes of metadata in it: those depend on where the compiler found its sources."""
    return METADATA.sub(METADATA_KEY + bytes(32), code)


def _instructions(data: bytes) -> Iterator[tuple[int, int]]:
    pc = 0
    while pc < len(data):
        op = data[pc]
        yield pc, op
        pc += 1 + (op - PUSH0 if PUSH0 < op <= PUSH32 else 0)


def _places(source_map: str, files: dict[int, str]) -> Iterator[Place | None]:
    """The source of every instruction; an empty field repeats the one before it."""
    start, length, file = 0, 0, -1
    for entry in source_map.split(";"):
        parts = [*entry.split(":"), "", "", ""]
        start, length, file = (
            int(part) if part else old for part, old in zip(parts[:3], (start, length, file), strict=True)
        )
        yield Place(files[file], start, length) if file in files else None

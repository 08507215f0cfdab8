"""The house's rule of who may import whom (design section 2), and that public names exist.

Guarantee: read from the sources by parsing, so a violation is found even in code that no test runs.
"""

from __future__ import annotations

import ast
import importlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("protocol", "aggregator", "offchain", "dtn", "scripts", "tests", "benchmarks")

MAY_IMPORT = {
    "protocol": {"protocol"},
    "aggregator": {"aggregator", "protocol"},
    "offchain": {"offchain", "protocol"},
    "dtn": {"dtn", "aggregator", "offchain", "protocol"},
    "scripts": {"protocol", "aggregator", "offchain"},
    # Only tests may import a script or a benchmark: the very one that deploys or measures.
    "tests": {"tests", "scripts", "benchmarks", "dtn", "aggregator", "offchain", "protocol"},
    "benchmarks": {"benchmarks", "dtn", "aggregator", "offchain", "protocol"},
}
TRAINING = {"jax", "jaxlib", "flax", "optax", "orbax", "llvmlite"}


def sources(room: str) -> Iterator[Path]:
    """All Python files of a room."""
    yield from sorted((ROOT / room).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and top-level name of every import in a file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, path.relative_to(ROOT).parts[0]
            else:
                yield node.lineno, (node.module or "").partition(".")[0]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(room)
        for line, name in imports(path)
        if name in ROOMS and name not in MAY_IMPORT[room] and name != room
    ]
    assert not wrong


@pytest.mark.parametrize("room", ["protocol", "aggregator"])
def test_protocol_and_aggregator_need_nothing_that_trains(room: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(room)
        for line, name in imports(path)
        if name in TRAINING
    ]
    assert not wrong


def imported_modules(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything imported in a file: the module, and ``module.name`` for each name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or ""
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def test_nothing_that_decides_knows_of_traces_and_one_module_of_opentelemetry() -> None:
    may_trace = {"node", "service", "tracing", "api"}  # the aggregator's shells
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for room in ("protocol", "aggregator", "offchain", "dtn", "scripts")
        for path in sources(room)
        for line, name in imported_modules(path)
        if (name.startswith("opentelemetry") and path != ROOT / "protocol" / "tracing.py")
        or (name.startswith("protocol.tracing") and room == "protocol")
        or (
            name.startswith(("protocol.tracing", "aggregator.tracing"))
            and room == "aggregator"
            and path.relative_to(ROOT / room).parts[0].removesuffix(".py") not in may_trace
        )
    ]
    assert not wrong


def test_the_ledger_and_the_replica_are_pure() -> None:
    impure = {
        "time",
        "random",
        "secrets",
        "socket",
        "os",
        "asyncio",
        "threading",
        "datetime",
        "uuid",
        "OpenSSL",
    }
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for room in ("aggregator/ledger", "aggregator/pbft")
        for path in sources(room)
        for line, name in imports(path)
        if name in impure
    ]
    assert not wrong


def _numbers(path: Path) -> Iterator[int]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        is_float = isinstance(node, ast.Constant) and isinstance(node.value, float)
        divides = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)
        if is_float or (divides and not isinstance(node.left, ast.Name)):  # type: ignore[attr-defined]
            yield node.lineno  # type: ignore[attr-defined]


def test_there_is_no_float_in_what_is_agreed_on() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for room in ("protocol", "aggregator/ledger", "aggregator/pbft")
        for path in sources(room)
        if "chain" not in path.relative_to(ROOT).parts
        for line in _numbers(path)
    ]
    assert not wrong


def packages() -> list[str]:
    """Packages that export names."""
    found = []
    for room in ("protocol", "aggregator", "offchain", "dtn"):
        for path in sorted((ROOT / room).rglob("__init__.py")):
            if "__all__" in path.read_text(encoding="utf-8"):
                found.append(".".join(path.parent.relative_to(ROOT).parts))
    return found


@pytest.mark.parametrize("package", packages())
def test_what_a_package_exports_exists(package: str) -> None:
    module = importlib.import_module(package)
    assert len(set(module.__all__)) == len(module.__all__)
    assert not [name for name in module.__all__ if not hasattr(module, name)]


def test_every_source_file_opens_with_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in sources(room)
        if path.read_text(encoding="utf-8").strip()
        and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not silent


def tracked() -> list[Path]:
    """Files that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


# Written in parts, so that this file keeps the rule it checks.
REGISTRIES = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("registry", "yarnpkg", "com"),
        ("npmjs", "com"),
        ("npm" + "mirror",),
    )
)
PLACES = tuple(f"/{folder}/" for folder in ("work", "root"))


def test_no_file_names_a_package_registry_or_a_folder_of_one_machine() -> None:
    wrong = []
    for path in tracked():
        name = str(path.relative_to(ROOT))
        text = path.read_bytes().decode("utf-8", "replace")
        wrong += [f"{name} mentions {word}" for word in (*REGISTRIES, *PLACES) if word in text]
    assert not wrong


def test_no_file_is_out_of_bounds_for_a_reader() -> None:
    long = [
        f"{path.relative_to(ROOT)} has {count} lines"
        for room in ("protocol", "aggregator", "offchain", "dtn")
        for path in sources(room)
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 700
    ]
    assert not long

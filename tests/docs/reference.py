"""The reference pages, made from the code they describe.

``docs/reference`` holds one page each for the commands, the configuration files, the protocol's parameters,
the HTTP API and the contracts. ``REWRITE=1 python -m pytest tests/docs/test_reference.py`` writes them anew.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Final

import solcx
import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from aggregator.api.app import build_app
from aggregator.config import AggregatorConfig
from dtn.app import app
from offchain.config import ClientConfig, ProviderConfig, ValidatorConfig, VerifierConfig
from protocol.chain.artifacts import CONTRACTS
from protocol.parameters import BPS, DAY_S, PARAMETERS, TOKEN_WEI
from scripts import compile as compiling

ROOT: Final = Path(__file__).resolve().parents[2]
TARGET: Final = ROOT / "docs" / "reference"
CONFIGS: Final[dict[str, type[BaseModel]]] = {
    "aggregator": AggregatorConfig,
    "provider": ProviderConfig,
    "validator": ValidatorConfig,
    "verifier": VerifierConfig,
    "client": ClientConfig,
}
NOTE: Final = (
    "*Made from the code: change that, then `REWRITE=1 python -m pytest tests/docs/test_reference.py`.*"
)


def pages() -> dict[str, str]:
    """File name to content of every page."""
    return {
        "commands.md": _page("Commands", _commands()),
        "configuration.md": _page("Configuration files", _configuration()),
        "parameters.md": _page("Protocol parameters", _parameters()),
        "api.md": _page("HTTP API", _api()),
        "contracts.md": _page("Contracts, from their NatSpec", _contracts()),
    }


def _page(title: str, lines: Iterable[str]) -> str:
    return "\n".join([f"# {title}", "", NOTE, "", *lines]).rstrip("\n") + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    written = [tuple(map(_cell, row)) for row in rows]
    if not written:
        return
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in written:
        yield f"| {' | '.join(row)} |"
    yield ""


# Commands --------------------------------------------------------------------------------------------------


def _commands() -> Iterator[str]:
    yield "Every command takes `--help`."
    yield ""
    yield from _command(("dtn",), typer.main.get_command(app))


def _command(path: tuple[str, ...], command: Any) -> Iterator[str]:
    if command.hidden:
        return
    if hasattr(command, "commands"):
        for name in sorted(command.commands):
            yield from _command((*path, name), command.commands[name])
        return
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    words = [*path, *(_argument(each) for each in arguments)]
    yield f"## `{' '.join(words)}`"
    yield ""
    yield " ".join((command.help or "").split("\f")[0].split())
    yield ""
    yield from _table(
        ("argument", "meaning"),
        ((f"`{_argument(each)}`", each.help or "") for each in arguments if each.help),
    )
    yield from _table(("option", "meaning", "default"), map(_option, options))


def _argument(argument: Any) -> str:
    name = (argument.metavar or argument.name).strip("[]").upper()
    return name if argument.required else f"[{name}]"


def _option(option: Any) -> tuple[str, str, str]:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    default = option.default
    if isinstance(default, Enum):
        default = default.value
    if isinstance(default, Path) and default.is_absolute():
        default = default.relative_to(ROOT)
    shown = "" if default in (None, False, ()) or callable(default) else f"`{default}`"
    return names, option.help or "", "required" if option.required else shown


# Configuration ---------------------------------------------------------------------------------------------


def _configuration() -> Iterator[str]:
    yield "One TOML file per role; `examples/` holds each with comments. Unknown keys are errors, and"
    yield "paths are relative to the file they stand in."
    yield ""
    for name, model in CONFIGS.items():
        yield f"## {name}.toml"
        yield ""
        yield from _table(
            ("key", "type", "default", "meaning"),
            (
                (f"`{key}`", f"`{_type(field.annotation)}`", _default(field), field.description or "")
                for key, field in model.model_fields.items()
            ),
        )


def _type(annotation: Any) -> str:
    if annotation is None or annotation is type(None):
        return "none"
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " or ".join(_type(each) for each in typing.get_args(annotation) if each is not type(None))
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(map(repr, typing.get_args(annotation)))
    if isinstance(annotation, type) and issubclass(annotation, Path):
        return "path"
    name = getattr(annotation, "__name__", str(annotation))
    return {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}.get(name, name)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, Enum):
        default = default.value
    if default is None or default in ((), [], {}):
        return "none"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


# Parameters ------------------------------------------------------------------------------------------------


def _parameters() -> Iterator[str]:
    yield "On the chain (`contracts/Parameters.sol`), changed by vote within their bounds and never for an"
    yield "order that already runs. `dtn dao parameters` shows the values in force."
    yield ""
    yield from _table(
        ("parameter", "default", "at least", "at most", "meaning"),
        (
            (
                f"`{name}`",
                *(_amount(name, value) for value in (rule.default, rule.low, rule.high)),
                rule.meaning,
            )
            for name, rule in PARAMETERS.items()
        ),
    )


def _amount(name: str, value: int) -> str:
    if name.endswith("_wei") and value % TOKEN_WEI == 0:
        return f"{value // TOKEN_WEI:,} tokens" if value else "0"
    if name.endswith("_wei"):
        return f"{value:,} wei"
    if name.endswith("_bps"):
        return f"{100 * value / BPS:g} %"
    if name.endswith("_s"):
        return f"{value // DAY_S} days" if value and value % DAY_S == 0 else f"{value} s"
    return f"{value:,}"


# API -------------------------------------------------------------------------------------------------------


def _api() -> Iterator[str]:
    schema = build_app(typing.cast("Any", None), typing.cast("Any", None)).openapi()
    yield "[docs/api.md](../api.md) explains it; a running aggregator serves the schema at `/openapi.json`."
    yield ""
    for path, methods in sorted(schema["paths"].items()):
        for method, route in methods.items():
            yield f"## `{method.upper()} {path}`"
            yield ""
            yield " ".join(route.get("description", "").split())
            yield ""
            answer = next(iter(route["responses"].values())).get("content", {})
            shape = answer.get("application/json", {}).get("schema", {}).get("$ref", "").rpartition("/")[2]
            if shape:
                yield f"Answers with `{shape}`."
                yield ""
            yield from _table(
                ("parameter", "in", "type", "meaning"),
                (
                    (
                        f"`{each['name']}`" + (" (required)" if each.get("required") else ""),
                        each["in"],
                        _json_type(each["schema"]),
                        each.get("description", ""),
                    )
                    for each in route.get("parameters", ())
                ),
            )
    yield "## Shapes"
    yield ""
    for name, shape in sorted(schema["components"]["schemas"].items()):
        if "properties" not in shape:
            continue
        yield f"### {name}"
        yield ""
        needed = shape.get("required", ())
        yield from _table(
            ("field", "type", "meaning"),
            (
                (
                    f"`{field}`" + ("" if field in needed else " (optional)"),
                    _json_type(each),
                    each.get("description", ""),
                )
                for field, each in shape["properties"].items()
            ),
        )


def _json_type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    if "anyOf" in schema:
        return " or ".join(_json_type(each) for each in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_json_type(schema.get('items', {}))}"
    bounds = {"minimum": "from", "maximum": "to"}
    said = "".join(f" {word} {schema[name]}" for name, word in bounds.items() if name in schema)
    pattern = f" `{schema['pattern']}`" if "pattern" in schema else ""
    return f"{schema.get('type', 'anything')}{said}{pattern}"


# Contracts -------------------------------------------------------------------------------------------------


def _contracts() -> Iterator[str]:
    yield "[docs/contracts.md](../contracts.md) says who may call what, and what it costs."
    yield ""
    request = compiling.request()
    request["settings"]["outputSelection"] = {"*": {"*": ["abi", "devdoc", "userdoc"]}}
    output = solcx.compile_standard(request, solc_version=compiling.COMPILER)["contracts"]
    for name in CONTRACTS:
        compiled = output[f"contracts/{name}.sol"][name]
        dev, user = compiled["devdoc"], compiled["userdoc"]
        yield f"## {name}"
        yield ""
        yield " ".join(filter(None, (dev.get("title"), user.get("notice"), dev.get("details"))))
        yield ""
        signatures = {_signature(each): each for each in compiled["abi"] if "name" in each}
        for kind, word in (("function", "methods"), ("event", "events"), ("error", "errors")):
            yield from _table(
                (word[:-1], "what it does" if kind == "function" else "meaning"),
                (
                    (f"`{signature}`", _natspec(kind, word, signature, dev, user))
                    for signature, each in sorted(signatures.items())
                    if each["type"] == kind
                ),
            )


def _signature(entry: dict[str, Any]) -> str:
    return f"{entry['name']}({','.join(_abi_type(each) for each in entry['inputs'])})"


def _abi_type(entry: dict[str, Any]) -> str:
    if not entry["type"].startswith("tuple"):
        return str(entry["type"])
    inner = ",".join(_abi_type(each) for each in entry["components"])
    return f"({inner}){entry['type'].removeprefix('tuple')}"


def _natspec(kind: str, section: str, signature: str, dev: dict[str, Any], user: dict[str, Any]) -> str:
    told, more = user.get(section, {}).get(signature, {}), dev.get(section, {}).get(signature, {})
    if kind == "error":  # the compiler gives a list: one error may be declared twice
        told, more = (each[0] if each else {} for each in (told, more))
    params = [f"`{name}`: {text}" for name, text in more.get("params", {}).items()]
    words = [told.get("notice", ""), more.get("details", ""), *params]
    return re.sub(r"\s+", " ", " ".join(filter(None, words)))

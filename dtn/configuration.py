"""The configuration of every role: which model checks it, how a file is read, which role a file is for.

The commented templates in ``dtn/templates`` are the files in ``examples/`` (a test holds them equal), so that
`dtn init` writes what the documents show.
"""

from __future__ import annotations

import functools
import json
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, cast

from pydantic import ValidationError

from protocol.errors import ProtocolError

if TYPE_CHECKING:
    from aggregator.config import AggregatorConfig
    from offchain.config import ActorConfig

RoleName = Literal["provider", "validator", "verifier", "client", "aggregator"]
ROLES: Final[tuple[RoleName, ...]] = ("provider", "validator", "verifier", "client", "aggregator")

Value = str | int | float | bool | None
"""What a setting may be; None comments it out."""


class UnknownRole(ProtocolError):
    """A configuration file of which it cannot be told whose it is."""


class BadSetting(ProtocolError):
    """A setting that the role's configuration does not have, or a value that it does not take."""


def kind_of(role: RoleName) -> type[ActorConfig] | type[AggregatorConfig]:
    """The model that checks a role's configuration."""
    if role == "aggregator":
        from aggregator.config import AggregatorConfig

        return AggregatorConfig
    from offchain import config

    kinds: dict[str, type[ActorConfig]] = {
        "provider": config.ProviderConfig,
        "validator": config.ValidatorConfig,
        "verifier": config.VerifierConfig,
        "client": config.ClientConfig,
    }
    return kinds[role]


def role_of_file(path: Path) -> RoleName:
    """Whose configuration a file is: by its settings, or else by its name.

    Raises:
        UnknownRole: neither tells.
    """
    try:
        settings = set(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        settings = set()
    fitting = [role for role in ROLES if settings <= set(kind_of(role).model_fields)]
    only = {
        role: settings - set().union(*(kind_of(other).model_fields for other in ROLES if other != role))
        for role in ROLES
    }
    telling = [role for role in ROLES if only[role]]
    named = [role for role in ROLES if role in path.stem.lower()]
    for found in (telling, named, fitting):
        if len(found) == 1:
            return found[0]
    raise UnknownRole(f"{path} does not tell whose configuration it is: name it with --role")


@functools.cache
def template(role: RoleName) -> str:
    """A role's commented configuration, with the defaults."""
    return resources.files("dtn").joinpath("templates", f"{role}.toml").read_text(encoding="utf-8")


def render(role: RoleName, settings: Mapping[str, Value], shown_as: str) -> str:
    """A role's template with these settings, for a file that its opening lines call ``shown_as``.

    Raises:
        BadSetting: a setting that the role does not have, or a value that it does not take.
    """
    text = template(role).replace(f"examples/{role}.toml", shown_as)
    for name, value in settings.items():
        text = _with_setting(text, name, value, role)
    check(role, text)
    return text


def check(role: RoleName, text: str) -> None:
    """Raise `BadSetting` unless the role's model takes what ``text`` says."""
    try:
        kind_of(role).model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as reason:
        raise BadSetting(f"this is not TOML: {reason}") from reason
    except ValidationError as reason:
        first = reason.errors()[0]
        raise BadSetting(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from reason


def settings_in(text: str) -> dict[str, Value]:
    """The settings of a configuration that are flat values, as all of ours are."""
    return cast("dict[str, Value]", tomllib.loads(text))


def _with_setting(text: str, name: str, value: Value, role: RoleName) -> str:
    line = re.compile(rf"^(?:# )?{re.escape(name)} = (?P<value>\"[^\"\n]*\"|[^#\s]+)", re.MULTILINE)
    found = line.search(text)
    if found is None:
        known = ", ".join(kind_of(role).model_fields)
        raise BadSetting(f"a {role} has no setting {name!r}; it has {known}")
    old = found["value"]
    new = f"# {name} = {old}" if value is None else f"{name} = {encoded(value)}"
    return text[: found.start()] + new + text[found.end() :]


def encoded(value: str | int | float | bool) -> str:
    """A value as TOML writes it."""
    return json.dumps(value, ensure_ascii=False)


def parsed(text: str) -> Value:
    """A value as somebody types it: what TOML reads, or else the text itself; an address is text."""
    if text.startswith("0x"):
        return text
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, str | int | float | bool) else text

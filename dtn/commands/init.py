"""``dtn init ROLE``: writes a role's commented configuration and makes its key.

Asks at a terminal; with ``--yes`` it takes options and defaults and asks nothing. What it writes was accepted
by the model that the role itself reads it with. It replaces no configuration unless told to, and never a key.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from dtn.commands import key as keys
from dtn.configuration import (
    ROLES,
    BadSetting,
    RoleName,
    Value,
    parsed,
    render,
    settings_in,
    template,
)
from dtn.output import JsonFlag, console, print_json, write_output
from protocol.crypto import Key
from protocol.errors import ProtocolError
from protocol.keyfile import address_in, encrypt, read_key, read_keystore, write_private

QUESTIONS: Final[dict[str, str]] = {
    "key_file": "Where the account's key is, or is to be made",
    "data_dir": "Where files are kept",
    "network": "The network file (chain, contracts, aggregators)",
    "rpc_url": "Your own chain node",
    "address_book": "The address book that `ape run deploy` wrote",
    "link_listen": "Where the other members connect to",
    "api_host": "The address that the API listens on",
    "api_port": "The port of the API",
    "gateway_host": "The address that the gateway listens on",
    "gateway_port": "The port of the gateway, through which others fetch your files",
    "public_url": "How others reach the gateway (https://…), empty if by host and port",
    "metrics_port": "The port for Prometheus, empty for none",
}
"""What is asked, where a role has it; all else keeps its default."""


class NotInitialised(ProtocolError):
    """A configuration that was not written; says why."""


def init(
    role: Annotated[str, typer.Argument(help=f"One of {', '.join(ROLES)}.", metavar="ROLE")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; ROLE.toml if not given.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting; may be given several times."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing: options and defaults.")] = False,
    key: Annotated[bool, typer.Option("--key/--no-key", help="Make the key file if it is not there.")] = True,
    password_file: keys.PasswordFile = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the configuration file.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write a role's configuration, with every setting explained, and make its key."""
    name = _role(role)
    path = output or Path(f"{name}.toml")
    if path.exists() and not force:
        raise NotInitialised(f"{path} exists already; name another file with -o, or replace it with --force")
    chosen = _given(settings or [])
    if chosen.get("signer_url"):
        chosen["key_file"], key = None, False  # an external signer has it
    text = render(name, chosen, str(path))
    if not yes:
        text = _asked(name, chosen, str(path))
    if password_file is not None and "password_file" not in settings_in(text):
        # Relative paths count from the configuration, not from here.
        chosen = {**settings_in(text), "password_file": os.path.relpath(password_file, path.parent)}
        text = render(name, chosen, str(path))
    named = settings_in(text).get("key_file")
    key_file = None if named is None else path.parent / str(named)
    # The key first: a configuration without one would only be half of what was asked for.
    address = _key(key_file, password_file) if key and key_file is not None else None
    write_output(path, text)
    _say(name, path, key_file, address, as_json)


def _role(role: str) -> RoleName:
    for name in ROLES:
        if name == role:
            return name
    raise NotInitialised(f"{role!r} is no role; it is one of {', '.join(ROLES)}")


def _given(settings: list[str]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for setting in settings:
        name, separator, value = setting.partition("=")
        if not separator:
            raise BadSetting(f"{setting!r} is no setting; write it like gateway_port=7701")
        found[name.strip()] = parsed(value.strip())
    return found


def _asked(role: RoleName, given: dict[str, Value], shown_as: str) -> str:
    """The configuration after asking for what was not given; each answer is checked at once."""
    chosen = dict(given)
    text = render(role, chosen, shown_as)
    known = settings_in(text)
    for name, question in QUESTIONS.items():
        if f"{name} = " not in template(role) or name in given:
            continue
        default = str(known.get(name, ""))
        while True:
            answer = typer.prompt(question, default=default, show_default=bool(default), err=True).strip()
            value = None if not answer else parsed(answer)
            try:
                text = render(role, {**chosen, name: value}, shown_as)
            except BadSetting as reason:
                typer.echo(f"  {reason}", err=True)
                continue
            chosen[name] = value
            break
    return text


def _key(path: Path, password_file: Path | None) -> bytes:
    """The address of the key that is there, or of a new one."""
    if not path.exists():
        key = Key.generate()
        write_private(path, encrypt(key, keys.new_password(path, password_file)))
        return key.address
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as reason:
        raise NotInitialised(f"cannot read the key file {path}") from reason
    told = address_in(read_keystore(text, str(path))) if text.lstrip().startswith("{") else None
    return told or read_key(path, password_file).address


def _say(role: RoleName, path: Path, key_file: Path | None, address: bytes | None, as_json: bool) -> None:
    account = None if address is None else "0x" + address.hex()
    if as_json:
        shown = None if key_file is None else str(key_file)
        print_json({"role": role, "config": str(path), "key_file": shown, "account": account})
        return
    console.print(f"wrote {path}", soft_wrap=True)
    if account is not None:
        console.print(f"account {account}, key in {key_file}: back it up offline", soft_wrap=True)
    console.print("next:")
    console.print("  send the account some of the chain's coin for gas, and tokens")
    console.print(f"  dtn doctor --config {path}", soft_wrap=True)
    if role != "client":
        console.print(f"  dtn {role} register --config {path}", soft_wrap=True)
    console.print(f"  dtn {role} run --config {path}", soft_wrap=True)

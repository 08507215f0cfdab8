"""``dtn key new|import|address|change-password``: keystores, whose secrets never pass through a command line.

A private key comes in from a file, a pipe or a prompt that shows nothing; a password as
`protocol.keyfile` says. What is written is a keystore of version 3, which other Ethereum tools read too.
"""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from eth_utils.address import to_checksum_address

from dtn.output import JsonFlag, console, print_json
from protocol.crypto import Key
from protocol.errors import InvalidKey
from protocol.keyfile import (
    MAX_FILE_BYTES,
    PASSWORD,
    PASSWORD_FILE,
    InvalidKeyFile,
    address_in,
    decrypt,
    encrypt,
    find_password,
    read_key,
    read_keystore,
    read_password,
    write_private,
)

app = typer.Typer(help="Make and keep the key of an account.", no_args_is_help=True)

NEW_PASSWORD: Final = "DTN_NEW_PASSWORD"

KeyFile = Annotated[Path, typer.Argument(help="The keystore.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option(help=f"File with the password; by default ${PASSWORD_FILE}, ${PASSWORD} or a prompt."),
]


@app.command()
def new(file: KeyFile, password_file: PasswordFile = None, as_json: JsonFlag = False) -> None:
    """Make a new account and write its key, encrypted, to FILE."""
    create(file, Key.generate(), password_file, as_json)


@app.command(name="import")
def import_(
    file: KeyFile,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="File with the private key in hex, `-` for a pipe; else a prompt."),
    ] = None,
    password_file: PasswordFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Encrypt an existing private key into FILE."""
    create(file, _given_key(source), password_file, as_json)


@app.command()
def address(file: KeyFile, as_json: JsonFlag = False) -> None:
    """Say whose key FILE holds; of a keystore what it says itself, without a password."""
    told = None
    try:
        text = file.read_text(encoding="utf-8")
        if text.lstrip().startswith("{"):
            told = address_in(read_keystore(text, str(file)))
    except (OSError, UnicodeDecodeError):
        pass  # `read_key` says what is wrong
    _say(file, told if told is not None else read_key(file).address, as_json)


@app.command()
def change_password(
    file: KeyFile,
    password_file: PasswordFile = None,
    new_password_file: Annotated[
        Path | None, typer.Option(help=f"File with the new one; else ${NEW_PASSWORD} or a prompt.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Encrypt the key in FILE with another password; the file is replaced once the new one is whole."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InvalidKeyFile(f"cannot read the key file {file}") from None
    if text.lstrip().startswith("{"):
        key = decrypt(text, find_password(file, password_file, "old password"), str(file))
    else:
        key = read_key(file)
    if new_password_file is not None:
        password = read_password(new_password_file)
    elif NEW_PASSWORD in os.environ:
        password = os.environ[NEW_PASSWORD]
    else:
        password = _asked_twice(file)
    write_private(file, encrypt(key, _not_empty(password)), replace=True)
    _say(file, key.address, as_json)


def create(file: Path, key: Key, password_file: Path | None, as_json: bool) -> None:
    """Write a keystore that is not there yet."""
    if file.exists():
        raise InvalidKeyFile(f"{file} exists already; name another file, or move it away")
    write_private(file, encrypt(key, new_password(file, password_file)))
    _say(file, key.address, as_json)


def _say(file: Path, account: bytes, as_json: bool) -> None:
    shown = to_checksum_address(account)
    if as_json:
        print_json({"address": shown, "file": str(file)})
    else:
        console.print(shown)


def new_password(file: Path, password_file: Path | None) -> str:
    """The password of a keystore to be made: as for opening one, but a prompt asks twice."""
    if password_file is None and not (PASSWORD_FILE in os.environ or PASSWORD in os.environ):
        return _asked_twice(file)
    return _not_empty(find_password(file, password_file))


def _asked_twice(file: Path) -> str:
    if not sys.stdin.isatty():
        raise InvalidKeyFile(
            f"no password for {file}: name a file with --password-file, or set ${PASSWORD_FILE} "
            f"or ${PASSWORD}"
        )
    password = getpass.getpass(f"new password for {file}: ")
    if getpass.getpass("the same again: ") != password:
        raise InvalidKeyFile("the two are not the same; nothing was written")
    return _not_empty(password)


def _not_empty(password: str) -> str:
    if not password:
        raise InvalidKeyFile("an empty password encrypts nothing; nothing was written")
    return password


def _given_key(source: Path | None) -> Key:
    if source is not None and str(source) != "-":
        return read_key(source)
    if source is None and sys.stdin.isatty():
        text = getpass.getpass("private key in hex: ")
    else:
        text = sys.stdin.read(MAX_FILE_BYTES)
    try:
        return Key(bytes.fromhex(text.strip().removeprefix("0x")))
    except (ValueError, InvalidKey):
        raise InvalidKeyFile("what was given is no private key: 64 hex digits") from None

"""Key files: where an account's private key stands, encrypted or in plain hex, and what unlocks it.

Two forms are read: Web3 Secret Storage version 3 (the JSON keystores of geth, Foundry, ape and wallets),
which a password opens, and one line of hex. A password never stands in a command line: it comes from a
file, from the environment, or from whoever sits at the terminal, in this order:

    1. ``password_file`` of the configuration
    2. the file that ``$DTN_PASSWORD_FILE`` names (systemd and container secrets)
    3. ``$DTN_PASSWORD``
    4. a prompt, if there is a terminal

Guarantees: a plain key or a password that others of the machine may read is refused; no error, log line or
``repr`` carries a secret; what a hostile keystore may cost (memory, rounds) is bounded before it is spent.

Source: Web3 Secret Storage Definition, version 3.
"""

from __future__ import annotations

import functools
import getpass
import json
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from protocol.crypto import Key
from protocol.errors import InvalidKey

PASSWORD: Final = "DTN_PASSWORD"
PASSWORD_FILE: Final = "DTN_PASSWORD_FILE"
SECRETS: Final = (PASSWORD, "DTN_NEW_PASSWORD")
"""Variables whose values are secrets: no child process inherits them."""
SCRYPT_N: Final = 2**18
"""As geth and eth-account choose it: about a second of one core, 256 MiB."""
MAX_FILE_BYTES: Final = 64 * 1024
MAX_SCRYPT_BYTES: Final = 2**30
MAX_SCRYPT_PARALLEL: Final = 16
MAX_PBKDF2_ROUNDS: Final = 10_000_000
MAX_OPENED: Final = 16
"""Keystores that stay open in one process, so that each is decrypted once."""


class InvalidKeyFile(InvalidKey):
    """A key or password file that cannot be used; says which and what to do."""


def read_key(path: Path, password_file: Path | None = None) -> Key:
    """The account's key in the file at ``path``.

    A keystore is decrypted once per process: what was opened stays open.

    Raises:
        InvalidKeyFile: not there, not private, neither hex nor a keystore; password missing or wrong.
    """
    text = _read_text(path, "the key file")
    if not text.lstrip().startswith("{"):
        require_private(path, "the key file")
        try:
            return Key(bytes.fromhex(text.strip().removeprefix("0x")))
        except (ValueError, InvalidKey):
            # Not chained: what the parser says of the text may quote it.
            raise InvalidKeyFile(
                f"{path} does not hold a private key: neither 64 hex digits nor a JSON keystore"
            ) from None
    return _opened(text, path, password_file)


@functools.lru_cache(maxsize=MAX_OPENED)
def _opened(text: str, path: Path, password_file: Path | None) -> Key:
    return decrypt(text, find_password(path, password_file), str(path))


def find_password(path: Path, password_file: Path | None = None, what: str = "password") -> str:
    """The password of the keystore at ``path``, from where the module's docstring says.

    Raises:
        InvalidKeyFile: there is none, or others may read its file.
    """
    named = password_file or (Path(given) if (given := os.environ.get(PASSWORD_FILE)) else None)
    if named is not None:
        return read_password(named)
    if PASSWORD in os.environ:
        return os.environ[PASSWORD]
    if sys.stdin.isatty() and sys.stderr.isatty():
        return getpass.getpass(f"{what} of {path}: ")
    raise InvalidKeyFile(
        f"{path} is encrypted and no password is given: set password_file in the configuration, "
        f"${PASSWORD_FILE} or ${PASSWORD}"
    )


def read_password(path: Path) -> str:
    """The password in the first line of a file that its owner alone may read; raises `InvalidKeyFile`."""
    require_private(path, "the password file")
    text = _read_text(path, "the password file").partition("\n")[0].rstrip("\r")
    if not text:
        raise InvalidKeyFile(f"the password file {path} is empty; its first line is the password")
    return text


def require_private(path: Path, what: str) -> None:
    """Raise `InvalidKeyFile` if others than its owner may read the file at ``path``.

    Under ``$CREDENTIALS_DIRECTORY`` the group's bits are the mask of an access list that systemd sets for the
    service's own account; the folder itself is closed to others.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as reason:
        raise InvalidKeyFile(f"cannot read {what} {path}: {reason.strerror}") from None
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    forbidden = 0o077
    if credentials and path.resolve().is_relative_to(Path(credentials).resolve()):
        forbidden = 0o007
    if mode & forbidden:
        raise InvalidKeyFile(
            f"others may read {what} {path} (mode {mode:03o}); make it yours alone: chmod 600 {path}"
        )


def _read_text(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as reason:
        raise InvalidKeyFile(f"cannot read {what} {path}: {reason.strerror}") from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidKeyFile(f"{path} holds no text; is it really {what}?") from None
    if len(data) > MAX_FILE_BYTES:
        raise InvalidKeyFile(f"{path} has more than {MAX_FILE_BYTES} bytes; is it really {what}?")
    return text


# Keystores ------------------------------------------------------------------------------------------------


def encrypt(key: Key, password: str, scrypt_n: int = SCRYPT_N) -> str:
    """A version 3 keystore of ``key`` as JSON; ``scrypt_n`` is what guessing one password costs."""
    from eth_account import Account

    document = Account.encrypt(key.secret, password, kdf="scrypt", iterations=scrypt_n)
    return json.dumps({**document, "address": key.address.hex()}, indent=2) + "\n"


def decrypt(text: str, password: str, name: str) -> Key:
    """The key in a keystore, which errors call ``name``.

    Raises:
        InvalidKeyFile: no keystore of version 3, one that would cost too much to open, or a wrong password.
    """
    from eth_account import Account

    document = read_keystore(text, name)
    try:
        secret = bytes(Account.decrypt(document, password))
    except (ValueError, KeyError, TypeError, NotImplementedError, OverflowError, MemoryError):
        # Not chained: errors of the library below may hold what it worked on.
        raise InvalidKeyFile(f"{name} does not open: the password is wrong, or the file is damaged") from None
    try:
        key = Key(secret)
    except InvalidKey:
        raise InvalidKeyFile(f"{name} holds no private key of an account") from None
    told = address_in(document)
    if told is not None and told != key.address:
        raise InvalidKeyFile(
            f"{name} says 0x{told.hex()} but holds the key of 0x{key.address.hex()}; it was tampered with"
        )
    return key


def read_keystore(text: str, name: str) -> dict[str, Any]:
    """The keystore in ``text`` with names in lower case, and within bounds; raises `InvalidKeyFile`."""
    try:
        document = _lowered(json.loads(text))
        crypto = document["crypto"]
        if document["version"] != 3:
            raise InvalidKeyFile(f"{name} is a keystore of version {document['version']!r:.20}; 3 is read")
        parameters = crypto["kdfparams"]
        match crypto["kdf"]:
            case "scrypt":
                size = 128 * _positive(parameters["n"]) * _positive(parameters["r"])
                fits = size <= MAX_SCRYPT_BYTES and _positive(parameters["p"]) <= MAX_SCRYPT_PARALLEL
            case "pbkdf2":
                fits = _positive(parameters["c"]) <= MAX_PBKDF2_ROUNDS
            case _:
                raise InvalidKeyFile(f"{name} uses a key derivation other than scrypt and pbkdf2")
        fits = fits and _positive(parameters["dklen"]) == 32
        if crypto["cipher"] != "aes-128-ctr":
            raise InvalidKeyFile(f"{name} uses a cipher other than aes-128-ctr")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InvalidKeyFile(f"{name} is JSON, but no keystore of version 3") from None
    if not fits:
        raise InvalidKeyFile(f"{name} would take more memory or rounds to open than any honest keystore")
    return document


def address_in(document: Mapping[str, Any]) -> bytes | None:
    """The address that a keystore says it is of, which nothing proves; None if it says none."""
    text = document.get("address")
    try:
        told = bytes.fromhex(text.removeprefix("0x")) if isinstance(text, str) else b""
    except ValueError:
        return None
    return told if len(told) == 20 else None


def _positive(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError("a positive integer")
    return value


def _lowered(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name).lower(): _lowered(inner) for name, inner in value.items()}
    return value


def write_private(path: Path, text: str, *, replace: bool = False) -> None:
    """Write a secret to a file of mode 600, whole or not at all.

    Raises:
        InvalidKeyFile: it is there already and not to be replaced, or the disk does not take it.
    """
    partial = path.with_name(f".{path.name}.new-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                os.replace(partial, path)
            else:
                os.link(partial, path)  # fails if there is one, whoever else writes at the same time
        finally:
            partial.unlink(missing_ok=True)
    except FileExistsError:
        raise InvalidKeyFile(f"{path} exists already; name another file, or move it away") from None
    except OSError as reason:
        raise InvalidKeyFile(f"cannot write {path}: {reason.strerror}") from None

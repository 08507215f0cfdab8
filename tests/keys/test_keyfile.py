"""Key files: both forms are read, hostile ones cost nothing, and no secret leaves in an error."""

from __future__ import annotations

import json
import os
import traceback
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from offchain.config import ClientConfig
from protocol.crypto import Key
from protocol.keyfile import InvalidKeyFile, decrypt, encrypt, read_key, require_private, write_private

KEY = Key(bytes(range(1, 33)))
PASSWORD = "correct horse battery staple"
CHEAP = 2**10
"""Rounds of scrypt: tests guess no passwords."""


@pytest.fixture(autouse=True)
def nobody_gives_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DTN_PASSWORD", "DTN_PASSWORD_FILE", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def keystore() -> str:
    return encrypt(KEY, PASSWORD, scrypt_n=CHEAP)


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def refusal(path: Path, password_file: Path | None = None) -> str:
    """The error of reading a key, with all that a log would show of it; holds no secret."""
    with pytest.raises(InvalidKeyFile) as caught:
        read_key(path, password_file)
    shown = "".join(traceback.format_exception(caught.value))
    assert KEY.secret.hex() not in shown and PASSWORD not in shown and repr(KEY.secret) not in shown
    return str(caught.value)


def test_a_keystore_opens_with_the_password_in_a_private_file(tmp_path: Path, keystore: str) -> None:
    store = written(tmp_path / "key.json", keystore, 0o644)
    opened = read_key(store, written(tmp_path / "password", PASSWORD + "\n"))
    assert opened.secret == KEY.secret


def test_a_keystore_is_the_one_that_other_ethereum_tools_read_and_write(keystore: str) -> None:
    assert bytes(Account.decrypt(keystore, PASSWORD)) == KEY.secret
    theirs = json.dumps(Account.encrypt(KEY.secret, PASSWORD, kdf="pbkdf2", iterations=1000))
    assert decrypt(theirs, PASSWORD, "theirs").address == KEY.address


@pytest.mark.parametrize("variable", ["DTN_PASSWORD", "DTN_PASSWORD_FILE"])
def test_the_environment_opens_a_keystore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    file = written(tmp_path / "password", PASSWORD)
    monkeypatch.setenv(variable, str(file) if variable.endswith("FILE") else PASSWORD)
    store = written(tmp_path / "key.json", encrypt(KEY, PASSWORD, scrypt_n=CHEAP))
    assert read_key(store).address == KEY.address


def test_a_configuration_names_both_files_beside_itself(tmp_path: Path, keystore: str) -> None:
    written(tmp_path / "client.key", keystore)
    written(tmp_path / "client.password", PASSWORD)
    config = written(
        tmp_path / "client.toml",
        'key_file = "client.key"\npassword_file = "client.password"\ndata_dir = "d"\nnetwork = "n"\n',
    )
    assert ClientConfig.read(config).key().address == KEY.address


def test_without_a_password_or_with_the_wrong_one_it_says_what_to_do(tmp_path: Path) -> None:
    store = written(tmp_path / "key.json", encrypt(KEY, PASSWORD, scrypt_n=CHEAP))
    assert "password_file" in refusal(store) and "DTN_PASSWORD" in refusal(store)
    assert "wrong" in refusal(store, written(tmp_path / "wrong", "not it"))
    assert "empty" in refusal(store, written(tmp_path / "empty", "\n"))
    assert "missing" in refusal(store, tmp_path / "missing")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_what_others_may_read_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, keystore: str, mode: int
) -> None:
    plain = written(tmp_path / "plain.key", KEY.secret.hex(), mode)
    assert f"chmod 600 {plain}" in refusal(plain)
    store = written(tmp_path / "key.json", keystore)
    password = written(tmp_path / "password", PASSWORD, mode)
    assert f"chmod 600 {password}" in refusal(store, password)
    plain.chmod(0o600)
    assert read_key(plain).address == KEY.address


def test_systemd_credentials_may_show_the_mask_of_their_access_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    (tmp_path / "credentials").mkdir()
    require_private(written(tmp_path / "credentials" / "password", PASSWORD, 0o440), "it")
    for file, mode in ((tmp_path / "credentials" / "all", 0o444), (tmp_path / "beside", 0o440)):
        with pytest.raises(InvalidKeyFile, match="chmod 600"):
            require_private(written(file, PASSWORD, mode), "it")


@pytest.mark.parametrize(
    "text",
    [
        KEY.secret.hex() + "0",
        KEY.secret.hex()[:-2] + "zz",
        "00" * 32,
        "",
        "{",
        "{}",
        '{"version": 3, "crypto": []}',
        "{" * 5000,
        f'{{"version": 3, "secret": "{KEY.secret.hex()}"}}',
    ],
)
def test_what_is_no_key_is_refused_without_being_quoted(tmp_path: Path, text: str) -> None:
    assert str(tmp_path) in refusal(written(tmp_path / "key", text))


def change(document: dict[str, Any], where: str, value: object) -> str:
    """The keystore with one field changed."""
    changed = json.loads(json.dumps(document))
    *path, last = where.split(".")
    inner = changed
    for name in path:
        inner = inner[name]
    inner[last] = value
    return json.dumps(changed)


@pytest.mark.parametrize(
    ("where", "value", "says"),
    [
        ("crypto.kdfparams.n", 2**31, "more memory"),
        ("crypto.kdfparams.r", 2**20, "more memory"),
        ("crypto.kdfparams.p", 10**9, "more memory"),
        ("crypto.kdfparams.dklen", 2**30, "more memory"),
        ("crypto.kdfparams.n", -1, "no keystore"),
        ("crypto.kdfparams.n", "1024", "no keystore"),
        ("crypto.kdfparams", {"c": 10**12, "dklen": 32, "prf": "hmac-sha256", "salt": ""}, "no keystore"),
        ("crypto.kdf", "argon2", "scrypt and pbkdf2"),
        ("crypto.cipher", "rot13", "aes-128-ctr"),
        ("crypto.ciphertext", "00", "does not open"),
        ("crypto.cipherparams", {}, "does not open"),
        ("version", 1, "version 1"),
        ("address", "00" * 20, "tampered"),
    ],
)
def test_a_hostile_keystore_is_refused_before_it_costs_anything(
    tmp_path: Path, keystore: str, where: str, value: object, says: str
) -> None:
    store = written(tmp_path / "key.json", change(json.loads(keystore), where, value))
    assert says in refusal(store, written(tmp_path / "password", PASSWORD))


def test_a_secret_is_written_privately_and_over_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.key"
    write_private(path, "one")
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InvalidKeyFile, match="exists already"):
        write_private(path, "two")
    assert path.read_text() == "one"
    write_private(path, "three", replace=True)
    assert path.read_text() == "three" and os.listdir(path.parent) == ["a.key"]

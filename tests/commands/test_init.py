"""``dtn init``: what it writes is what the examples show, is read by the role, and replaces nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dtn.app import app
from dtn.configuration import ROLES, BadSetting, RoleName, kind_of, render, role_of_file, template
from protocol.errors import ProtocolError
from protocol.keyfile import read_key, write_private

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PASSWORD = "an ordinary password"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DTN_PASSWORD", "DTN_PASSWORD_FILE"):
        monkeypatch.delenv(name, raising=False)


def init(*arguments: str, answers: str = "") -> Result:
    """``dtn init`` with these arguments; expected errors are raised."""
    done = CliRunner().invoke(app, ["init", *arguments], input=answers)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.mark.parametrize("role", ROLES)
def test_the_examples_are_what_init_writes_by_default(role: RoleName) -> None:
    shown = (EXAMPLES / f"{role}.toml").read_text(encoding="utf-8")
    assert render(role, {}, f"examples/{role}.toml") == shown, (
        f"copy examples/{role}.toml to dtn/templates/{role}.toml, or the other way round"
    )


@pytest.mark.parametrize("role", ROLES)
def test_without_questions_it_writes_a_configuration_and_a_key_that_the_role_reads(
    role: RoleName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DTN_PASSWORD", PASSWORD)
    told = json.loads(init(role, "--yes", "--json").stdout)
    config = kind_of(role).read(tmp_path / f"{role}.toml")
    assert config.key_file == tmp_path / f"{role}.key"
    assert told["account"] == "0x" + config.key().address.hex()
    assert f"{role}.toml" in (tmp_path / f"{role}.toml").read_text() and PASSWORD not in json.dumps(told)
    assert role_of_file(tmp_path / f"{role}.toml") == role


def test_settings_are_written_in_their_places_with_their_comments(tmp_path: Path) -> None:
    settings = ("gateway_port=7799", "public_url=https://files.example.org", "metrics_port=9000", "seed=7")
    options = [word for setting in settings for word in ("--set", setting)]
    init("provider", "--yes", "--no-key", "-o", "conf/mine.toml", *options)
    config = kind_of("provider").read(tmp_path / "conf" / "mine.toml")
    assert (config.gateway_port, config.metrics_port, config.seed) == (7799, 9000, 7)  # type: ignore[union-attr]
    assert config.public_url == "https://files.example.org"  # type: ignore[union-attr]
    text = (tmp_path / "conf" / "mine.toml").read_text()
    assert text.count("\n") == template("provider").count("\n"), "no line is lost or added"
    assert "conf/mine.toml" in text and "examples/" not in text


def test_questions_are_asked_again_until_the_answer_will_do(tmp_path: Path) -> None:
    write_private(tmp_path / "my.key", "11" * 32)
    answers = ["my.key", "data", "network.json", "0.0.0.0", "99999", "7702", "", ""]
    done = init("validator", answers="\n".join(answers) + "\n")
    config = kind_of("validator").read(tmp_path / "validator.toml")
    assert done.exit_code == 0 and (config.gateway_host, config.gateway_port) == ("0.0.0.0", 7702)  # type: ignore[union-attr]
    assert config.key().address == read_key(tmp_path / "my.key").address


def test_nothing_is_replaced_unless_told_and_a_key_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DTN_PASSWORD", PASSWORD)
    init("client", "--yes")
    key = (tmp_path / "client.key").read_bytes()
    with pytest.raises(ProtocolError, match="exists already"):
        init("client", "--yes", "--set", "gateway_port=7710")
    init("client", "--yes", "--force", "--set", "gateway_port=7710")
    assert kind_of("client").read(tmp_path / "client.toml").gateway_port == 7710  # type: ignore[union-attr]
    assert (tmp_path / "client.key").read_bytes() == key


def test_a_password_file_is_named_in_the_configuration(tmp_path: Path) -> None:
    write_private(tmp_path / "secret", PASSWORD)
    init("verifier", "--yes", "-o", "conf/verifier.toml", "--password-file", "secret")
    config = kind_of("verifier").read(tmp_path / "conf" / "verifier.toml")
    assert config.password_file is not None and config.password_file.samefile(tmp_path / "secret")
    assert config.key().address


@pytest.mark.parametrize(
    ("setting", "says"),
    [("gateway_prt=1", "no setting"), ("gateway_port=x", "gateway_port"), ("gateway_port", "write it like")],
)
def test_a_bad_setting_is_refused_and_nothing_is_written(tmp_path: Path, setting: str, says: str) -> None:
    with pytest.raises(BadSetting, match=says):
        init("provider", "--yes", "--set", setting)
    assert not list(tmp_path.iterdir())


def test_without_a_password_there_is_no_key_and_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="password"):
        init("provider", "--yes")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ProtocolError, match="no role"):
        init("miner", "--yes")

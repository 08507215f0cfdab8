"""systemd units and the compose file start what exists, hold no secret, and systemd itself finds no fault."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from dtn.app import app
from dtn.configuration import ROLES, kind_of, settings_in, template

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def runs(words: list[str]) -> str:
    """The role that a command line of ``dtn`` runs; fails if there is no such command or option."""
    command: Any = typer.main.get_command(app)
    role = ""
    while words:
        word = words.pop(0)
        if word.startswith("--"):
            assert word in {option for parameter in command.params for option in parameter.opts}, word
            words.pop(0)
            continue
        assert word in command.commands, word
        role, command = role or word, command.commands[word]
    assert command.name == "run"
    return role


class Unit(configparser.RawConfigParser):
    """A unit file; names of settings keep their case, and may be given several times."""

    optionxform = staticmethod(str)  # type: ignore[assignment]


def test_every_role_has_a_unit_and_a_service() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert {path.stem for path in UNITS} == {f"dtn-{role}" for role in ROLES}
    assert set(services) == {*ROLES, "prometheus", "grafana"}


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_runs_its_role_as_its_own_account_with_a_credential(path: Path) -> None:
    unit = Unit(strict=True, interpolation=None)
    unit.read_string(path.read_text())
    service = unit["Service"]
    program, *words = service["ExecStart"].split()
    role = path.stem.removeprefix("dtn-")
    assert program.endswith("/dtn") and runs(words) == role
    assert service["User"] == service["StateDirectory"] == path.stem
    assert service["LoadCredential"].startswith("password:")
    assert service["Environment"] == "DTN_PASSWORD_FILE=%d/password"
    assert service["NoNewPrivileges"] == "yes" and service["ProtectSystem"] == "strict"


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_finds_no_fault_with_a_unit(path: Path, tmp_path: Path) -> None:
    program = shutil.which("dtn") or os.path.join(os.path.dirname(sys.executable), "dtn")
    copy = tmp_path / path.name
    copy.write_text(path.read_text().replace("/opt/dtn/bin/dtn", program))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60
    )
    if "Failed to initialize manager" in done.stderr or "connect to bus" in done.stderr:
        pytest.skip("systemd does not run here")
    faults = [line for line in done.stderr.splitlines() if path.stem in line]
    assert not faults


def test_the_compose_file_starts_roles_without_privileges_or_secrets() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert (DEPLOY / compose["x-role"]["build"]["dockerfile"]).parent.name == "deploy"
    for role in ROLES:
        service = compose["services"][role]
        assert runs(list(service["command"])) == role
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert service["environment"] == {"DTN_PASSWORD_FILE": f"/etc/dtn/{role}.password"}
        volumes = [volume.partition(":")[0] for volume in service["volumes"]]
        assert role in volumes and role in compose["volumes"]


def test_published_ports_are_those_of_the_templates() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for role in ROLES:
        settings = settings_in(template(role))
        ports = {int(text.rpartition(":")[2]) for text in services[role].get("ports", [])}
        text = template(role)
        links = {int(port) for port in re.findall(r"tcp://127\.0\.0\.1:(\d+)", text)}
        metrics = {int(port) for port in re.findall(r"metrics_port = (\d+)", text)}
        named = {settings.get("gateway_port"), settings.get("api_port")} | links
        assert ports <= named, f"{role} publishes {ports - named}"
        health = int(re.findall(r":(\d+)/healthz", str(services[role]["healthcheck"]["test"]))[0])
        assert health in metrics | {settings.get("api_port")}
        assert "metrics_port" in kind_of(role).model_fields or role == "aggregator"


def test_the_image_has_every_room_and_the_files_it_copies_exist() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    copied = [
        word
        for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
        for word in line.split()[:-1]
    ]
    assert {"protocol", "aggregator", "offchain", "dtn", "constraints.txt"} <= set(copied)
    assert all((DEPLOY.parent / word).exists() for word in copied)
    assert re.search(r"^USER (?!root)", text, re.MULTILINE)

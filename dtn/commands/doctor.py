"""``dtn doctor``: what is wrong with a node and what to do; status 1 if anything is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from dtn.configuration import ROLES, RoleName, role_of_file
from dtn.doctor import Verdict, diagnose
from dtn.home import default_client
from dtn.output import JsonFlag, console, print_json
from offchain.config import InvalidConfig

MARKS: Final[dict[Verdict, str]] = {
    "ok": "[green]ok[/green]     ",
    "warning": "[yellow]warning[/yellow]",
    "failed": "[red]FAILED[/red] ",
    "skipped": "[dim]skipped[/dim]",
}


def doctor(
    config: Annotated[
        Path | None,
        typer.Option("--config", help="A role's TOML file; by default $DTN_CLIENT or the local client."),
    ] = None,
    role: Annotated[
        str | None, typer.Option(help=f"Whose it is, if the file does not tell: {', '.join(ROLES)}.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Look at everything that a node needs, whether it runs or not, and say what to mend."""
    path = config or default_client()
    if not path.exists():
        raise InvalidConfig(
            f"no configuration at {path}: name one with --config, or write it with `dtn init`"
        )
    name = _role(role, path)
    findings = []
    for finding in diagnose(name, path):
        findings.append(finding)
        if not as_json:
            console.print(f"{MARKS[finding.verdict]} [bold]{finding.check}[/bold]: ", end="")
            console.print(finding.what, markup=False, soft_wrap=True)
            if finding.do:
                console.print(f"        → {finding.do}", markup=False, soft_wrap=True)
    broken = any(finding.verdict == "failed" for finding in findings)
    if as_json:
        print_json({"role": name, "healthy": not broken, "findings": [asdict(each) for each in findings]})
    if broken:
        raise typer.Exit(1)


def _role(given: str | None, path: Path) -> RoleName:
    if given is None:
        return role_of_file(path)
    for name in ROLES:
        if name == given:
            return name
    raise InvalidConfig(f"{given!r} is no role; it is one of {', '.join(ROLES)}")

"""What the documents name exists: files, commands, options, routes, and the code behind the paper's items."""

from __future__ import annotations

import ast
import importlib
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import typer
import yaml

from aggregator.api.app import build_app
from dtn.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
ROOMS = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
MADE_HERE = ("build/", "node_modules/")
"""Folders that are no part of a checkout."""


def name_of(page: Path) -> str:
    """A page's path, for the names of tests."""
    return str(page.relative_to(ROOT))


def code_in(text: str) -> Iterator[str]:
    """Every piece of code in a page: lines of fenced blocks, then what stands in backticks elsewhere."""
    outside = []
    fenced = False
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip().startswith("```"):
            fenced = not fenced
        elif fenced:
            yield line
        else:
            outside.append(line)
    yield from re.findall(r"`([^`]+)`", "\n".join(outside))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    missing = [link for link in links if not (page.parent / link).exists()]
    for code in code_in(text):
        for path in re.findall(r"[\w.*-]+(?:/[\w.*-]+)+", code):
            if path.split("/")[0] in ROOMS and not path.startswith(MADE_HERE) and not list(ROOT.glob(path)):
                missing.append(path)
    assert not missing


def commands() -> Iterator[tuple[Path, list[str]]]:
    """Every ``dtn`` command line in the pages and examples, as words after ``dtn``."""
    for page in [*PAGES, *sorted((ROOT / "examples").iterdir())]:
        text = page.read_text(encoding="utf-8")
        lines = code_in(text) if page.suffix == ".md" else [line.lstrip("# ") for line in text.splitlines()]
        for line in lines:
            if match := re.match(r"(?:\S*\$ )?dtn (.+)", line.strip()):
                yield page, match.group(1).partition("#")[0].split()


@pytest.mark.parametrize(
    ("page", "words"),
    commands(),
    ids=lambda value: name_of(value) if isinstance(value, Path) else "-".join(value),
)
def test_every_command_that_a_page_names_exists_with_its_options(page: Path, words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    if words[0].startswith("-"):
        assert words[0] in {option for parameter in command.params for option in parameter.opts}
        return
    rest = list(words)
    while hasattr(command, "commands") and rest:
        # ROLE and NAME stand for any of the roles; they are alike.
        word = "provider" if rest[0] == "ROLE" else rest[0]
        assert word in command.commands, f"no command {word!r} in {' '.join(words)}"
        command = command.commands[word]
        rest.pop(0)
    known = {option for parameter in command.params for option in parameter.opts}
    for word in rest:
        assert not word.startswith("-") or word in known, f"{' '.join(words)}: no option {word}"


def rows_of_the_map() -> Iterator[tuple[str, str]]:
    """What a row is about, and its third column."""
    for line in (ROOT / "docs" / "paper-map.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 6 and cells[3] not in ("where", "---"):
            yield cells[1], cells[3]


@pytest.mark.parametrize(("item", "where"), rows_of_the_map())
def test_the_code_behind_each_item_of_the_paper_is_where_the_map_says(item: str, where: str) -> None:
    places = where.split("; ")
    for place in places:
        path, *names = re.findall(r"`([^`]+)`", place)
        source = (ROOT / path).read_text(encoding="utf-8")
        for name in names:
            defined = rf"\b(def|class|function|struct) {name}\b|\b{name}\b\s*(:|=[^=])"
            assert re.search(defined, source), f"{item}: {path} does not define {name}"


def test_the_map_covers_the_paper() -> None:
    items = " ".join(item for item, _ in rows_of_the_map())
    expected = ["PoT.Claim", "PoT.Validate", "PoT.Verify", "PoT.Finalize", "Put(", "Get(", "Manage.Refresh"]
    expected += [
        "equation 1",
        "equation 2",
        "equation 3",
        "Manage.Update",
        "Manage.FetchOrders",
        "Manage.Claim",
    ]
    expected += ["Manage.FetchValidations", "Manage.Challenge", "Manage.RegisterResource", "Get.SendModel"]
    expected += ["Manage.RegisterVerifier", "VRF_Model", *(f"phase {number}," for number in range(1, 7))]
    assert [item for item in expected if item not in items] == []


def test_the_api_page_lists_exactly_the_routes() -> None:
    served = {
        f"{method} {re.sub('{[^}]*}', '*', route.path)}"
        for route in build_app(cast(Any, None), list).routes
        for method in getattr(route, "methods", ())
        if route.path.startswith(("/v1", "/healthz", "/readyz", "/metrics"))
    }
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    listed = {
        re.sub(r"\b(OID|ID|ADDRESS|SECTION|KEY)\b", "*", match.partition("?")[0])
        for match in re.findall(r"^\| `((?:GET|POST) [^`]+)`", text, re.MULTILINE)
    }
    assert listed == served


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_snippets_are_whole(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for language, block in re.findall(r"^ *```(\w+)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        if language == "json":
            json.loads(textwrap.dedent(block))
        elif language == "python":
            for node in ast.parse(textwrap.dedent(block)).body:
                if isinstance(node, ast.ImportFrom) and node.module is not None:
                    module = importlib.import_module(node.module)
                    assert all(hasattr(module, alias.name) for alias in node.names)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_names_no_place_of_one_machine(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.~])/(work|root|home|tmp)/", text)
    assert max(map(len, text.splitlines())) <= 200 or "|" in text


def test_the_readme_opens_with_what_it_is_and_the_two_commands() -> None:
    opening = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:16]
    assert any(line.startswith("make demo") for line in opening)
    assert any(line.startswith("make test") for line in opening)


def test_the_site_shows_every_page_and_links_to_nothing_outside() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    shown = re.findall(r"[\w./-]+\.md", json.dumps(site["nav"]))
    docs = ROOT / "docs"
    assert sorted(shown) == sorted(str(path.relative_to(docs)) for path in docs.rglob("*.md"))
    for page in docs.rglob("*.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).resolve().is_relative_to(docs), f"{page}: {link}"

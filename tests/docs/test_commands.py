"""Every command line that a page shows is understood by the program that it names, arguments and all.

Not one of them is run for what it does here: docs/tutorial.md is run whole
(tests/end_to_end/test_tutorial.py), the other pages' commands by the tests of what they are about. This finds
the ones that stopped being commands.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from dtn.app import app
from tests.docs.test_documents import PAGES, ROOT, code_in, name_of

STANDS_FOR = {"OID": "0x" + "00" * 32, "ADDRESS": "0x" + "00" * 20, "N": "4"}
"""Words of the pages where a program wants the real thing."""


def blocks(text: str) -> Iterator[str]:
    """The lines of a page's fenced blocks."""
    fenced = False
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip().startswith("```"):
            fenced = not fenced
        elif fenced:
            yield line.strip()


def shown(pattern: str, lines: Any) -> Iterator[tuple[Path, list[str]]]:
    """Lines of all pages that begin with a program, as words from where the pattern's group begins."""
    for page in PAGES:
        for line in lines(page.read_text(encoding="utf-8")):
            if match := re.match(
                rf"(?:\S*\$ )?\(?(?:ulimit [^;]*; )?(?:[A-Z_]+=\S+ )*{pattern}", " ".join(line.split())
            ):
                yield page, shlex.split(match.group(1).rstrip(")"), comments=True)


def test_every_dtn_command_in_a_block_is_whole() -> None:
    """Nothing required is missing, no argument is too many, every value is of its option's kind."""
    lines = list(shown(r"dtn (.+)", blocks))
    assert len(lines) > 50, "the pages have not become empty"
    for page, words in lines:
        command: Any = typer.main.get_command(app)
        try:
            context = command.make_context("dtn", list(words))
            while hasattr(command, "commands"):
                name, command, rest = command.resolve_command(
                    context, [*context._protected_args, *context.args]
                )
                context = command.make_context(name, rest, parent=context)
        except typer.Exit:
            pass  # --help, --version
        except Exception as reason:
            pytest.fail(f"{name_of(page)}: dtn {shlex.join(words)}: {reason}")


PARSE = """
import argparse, importlib, importlib.util, json, sys

class Parsed(Exception):
    pass

real = argparse.ArgumentParser.parse_args

def parse_args(self, args=None, namespace=None):
    real(self, args, namespace)
    raise Parsed

argparse.ArgumentParser.parse_args = parse_args
for module, words in json.load(sys.stdin):
    print(module, *words, flush=True, file=sys.stderr)
    found = importlib.util.find_spec(module)
    if found is None:
        sys.exit("there is no such program")
    if not words:
        continue
    sys.argv = [module, *words]
    loaded = importlib.import_module(module + ".__main__" * bool(found.submodule_search_locations))
    try:
        loaded.main()
    except Parsed:
        continue
    sys.exit("it takes no arguments")
"""
"""Has each program's own parser read its arguments, in a process that nothing else lives in."""


def programs() -> list[tuple[str, list[str]]]:
    """Python programs of this repository in the pages, with their arguments."""
    modules = [(words[0], words[1:]) for _, words in shown(r"python -m ((?:benchmarks|tests)\b.*)", code_in)]
    files = [
        (words[0].removesuffix(".py").replace("/", "."), words[1:])
        for _, words in shown(r"python ((?:scripts|tests|examples)/.*)", code_in)
    ]
    return sorted(
        {(name, tuple(STANDS_FOR.get(word, word) for word in words)) for name, words in [*modules, *files]}
    )


def test_every_benchmark_and_script_takes_the_arguments_that_a_page_gives_it() -> None:
    asked = programs()
    assert len(asked) > 20
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PARSE],
        input=json.dumps(asked),
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]


COLLECT = """
import json, sys
import pytest
from _pytest.mark import KeywordMatcher
from _pytest.mark.expression import Expression

asked = json.load(sys.stdin)
counts = []

class Look:
    def pytest_collection_modifyitems(self, items):
        for path, expression in asked:
            inside = [item for item in items if (item.nodeid + "/").startswith((path + "/", path + "::"))]
            chosen = Expression.compile(expression) if expression else None
            found = sum(chosen is None or chosen.evaluate(KeywordMatcher.from_item(item)) for item in inside)
            counts.append([path, expression, found])

paths = {path for path, _ in asked}
paths = sorted(path for path in paths if not any(path.startswith(other + "/") for other in paths))
ended = pytest.main(["--collect-only", "-p", "no:cacheprovider", *paths], plugins=[Look()])
print(json.dumps(counts))
sys.exit(ended)
"""
"""Collects all tests once, and counts for each command what it would run."""


def test_every_pytest_command_of_a_page_runs_something() -> None:
    """Above all those of docs/bugs.md, that say what replays a bug."""
    asked = set()
    for _, words in shown(r"(?:python -m )?pytest ((?!-n |-p )\S.*)", code_in):
        expression = words[words.index("-k") + 1] if "-k" in words else ""
        paths = [word for word in words if word.startswith("tests/")]
        asked |= {(path.rstrip("/"), expression) for path in paths}
    assert len(asked) > 50
    done = subprocess.run(
        [sys.executable, "-c", COLLECT],
        input=json.dumps(sorted(asked)),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == len(asked)
    assert [(path, expression) for path, expression, count in found if not count] == []


def test_every_command_of_make_and_ape_in_a_page_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page, words in shown(r"make ([a-z-]+)\b", code_in):
        assert words[0] in targets, f"{name_of(page)}: make {words[0]}"
    deploy = (ROOT / "scripts" / "deploy.py").read_text(encoding="utf-8")
    options = {*re.findall(r'click\.option\(\s*"(--[a-z-]+)"', deploy), "--network"}
    for page, words in shown(r"ape run deploy\b(.*)", code_in):
        missing = [word for word in words if word.startswith("--") and word not in options]
        assert not missing, f"{name_of(page)}: ape run deploy {missing}"
    for page, words in shown(r"(?:ape compile --force && )?ape test (.+)", code_in):
        text = (ROOT / words[0]).read_text(encoding="utf-8") if words[0].endswith(".py") else ""
        if "-k" in words:
            assert re.search(rf"def test_\w*{words[words.index('-k') + 1]}", text), (
                f"{name_of(page)}: {words}"
            )
        assert (ROOT / words[0]).exists()

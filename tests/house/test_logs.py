"""Logs as JSON: one line, one object, the ids of what it is about, and no way to forge a line."""

from __future__ import annotations

import ast
import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from protocol.logs import MAX_MESSAGE_CHARS, BadLogFormat, JsonFormatter, TextFormatter, about, configure

FORMATTER = JsonFormatter()
ROOT = Path(__file__).parents[2]
ROOMS = ("aggregator", "benchmarks", "dtn", "examples", "offchain", "protocol", "scripts", "tests")


def line(message: str, *arguments: object, error: BaseException | None = None) -> str:
    info = None if error is None else (type(error), error, error.__traceback__)
    return FORMATTER.format(logging.LogRecord("dtn.test", logging.INFO, "", 0, message, arguments, info))


def test_a_line_carries_the_ids_of_what_it_is_about_and_only_there() -> None:
    with about(oid="0xab"), about(sequence=7):
        inside = json.loads(line("claimed %s", "it"))
    assert (inside["oid"], inside["sequence"], inside["message"]) == ("0xab", 7, "claimed it")
    assert inside["level"] == "INFO" and inside["time"].endswith("Z") and inside["process"] == os.getpid()
    assert not {"oid", "sequence"} & set(json.loads(line("later")))


def test_ids_of_one_thread_are_not_another_s() -> None:
    seen: list[str] = []
    with about(oid="0xab"):
        thread = threading.Thread(target=lambda: seen.append(line("elsewhere")))
        thread.start()
        thread.join()
    assert "oid" not in json.loads(seen[0])


@pytest.mark.parametrize("text", ['a\n{"level": "forged"}', "\u2028\x00\x1b[31m", "x" * 10**6, "\ud800"])
def test_whatever_strangers_say_stays_one_bounded_line(text: str) -> None:
    shown = line("a node says %s", text)
    assert "\n" not in shown and shown.isascii() and len(shown) < 8 * MAX_MESSAGE_CHARS
    assert json.loads(shown)["level"] == "INFO"


@pytest.mark.parametrize("text", ["a\n2026-01-01 INFO dtn: forged", "\u2028\x00\x1b[31m", "x" * 10**6])
def test_as_text_too(text: str) -> None:
    record = logging.LogRecord("dtn.test", logging.INFO, "", 0, "a node says %s", (text,), None)
    shown = TextFormatter().format(record)
    assert shown.isprintable() and len(shown) < 2 * MAX_MESSAGE_CHARS
    assert "INFO dtn.test: a node says" in shown


def test_a_traceback_cannot_forge_a_line_either() -> None:
    try:
        raise ValueError("a stranger's\n2026-01-01 INFO dtn: forged\x1b[2J")
    except ValueError as reason:
        info = (ValueError, reason, reason.__traceback__)
    record = logging.LogRecord("dtn.test", logging.ERROR, "", 0, "failed", (), info)
    first, *rest = TextFormatter().format(record).split("\n")
    assert first.endswith("failed") and "  2026-01-01 INFO dtn: forged\N{REPLACEMENT CHARACTER}[2J" in rest
    assert all(line.startswith("  ") and line.isprintable() for line in rest)


def test_an_error_comes_with_its_traceback() -> None:
    try:
        raise ValueError("boom")
    except ValueError as reason:
        assert "ValueError: boom" in json.loads(line("failed", error=reason))["error"]


def test_an_unknown_format_or_level_is_refused() -> None:
    with pytest.raises(BadLogFormat, match="text or json"):
        configure(form="xml")
    with pytest.raises(BadLogFormat, match="DEBUG"):
        configure(level="loud")


def test_a_command_logs_json_when_told() -> None:
    code = "from protocol.logs import configure, about\nimport logging\nconfigure()\n"
    code += "with about(oid='0xab'): logging.getLogger('dtn').info('hello')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "DTN_LOG_FORMAT": "json", "DTN_LOG": "info"},
    )
    told = json.loads(done.stderr)
    assert (told["message"], told["oid"], told["logger"]) == ("hello", "0xab", "dtn")


SERVE = """
import socket
from fastapi import FastAPI
from offchain.serving import HttpServer
from protocol.logs import configure

configure(form="json")
server = HttpServer(FastAPI(), "test")
server.start()
with socket.create_connection(server._socket.getsockname()) as stranger:
    stranger.sendall(b"\\x00 no HTTP\\r\\n\\r\\n")
    stranger.recv(1000)
server.stop()
"""
"""A server, and a stranger who speaks no HTTP to it, of which the HTTP library warns."""


def test_what_the_server_s_library_tells_is_a_line_like_any_other() -> None:
    done = subprocess.run([sys.executable, "-c", SERVE], capture_output=True, text=True, timeout=60)
    assert [json.loads(line)["logger"] for line in done.stderr.splitlines()] == ["uvicorn.error"]


def test_no_server_closes_the_handlers_of_others() -> None:
    """Uvicorn's default configuration of logs closes all handlers there are, some with the file beneath."""
    calls = [
        (path, node)
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("uvicorn.Config", "uvicorn.run")
    ]
    assert len(calls) >= 2
    for path, call in calls:
        given = {each.arg: ast.unparse(each.value) for each in call.keywords}
        assert given.get("log_config") == "None", f"{path.relative_to(ROOT)}:{call.lineno}"

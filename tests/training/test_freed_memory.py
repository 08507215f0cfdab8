"""Memory that a step frees is there for the next: its pages are not mapped and cleared again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import ctypes, resource, sys
from offchain.training.freed_memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def step():
    piece = c.malloc(64 << 20)
    ctypes.memset(piece, 1, 64 << 20)
    c.free(piece)
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Pages that four steps of 64 MiB had mapped."""
    command = [sys.executable, "-c", SCRIPT, how]
    return int(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def test_a_step_finds_the_pages_of_the_one_before() -> None:
    # Asked in a process of its own: the answer holds for a whole process.
    knows = "from offchain.training.freed_memory import keep_freed_memory as keep; exit(not keep())"
    if subprocess.run([sys.executable, "-c", knows], cwd=ROOT, check=False).returncode:
        pytest.skip("this C library hands nothing back, or says nothing about it")
    assert faults("kept") < 100 < faults("handed back")

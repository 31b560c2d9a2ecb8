"""Panics of native code, which are printed although they are caught, do not reach the user."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import contextlib, os, sys
from clinical_drug_discovery.system.untrusted.panics import keep_stderr, without_panics
def native(text):
    os.write(2, text.encode())
def fail():
    native("a warning\\n")
    native("\\nthread 'async-1' (17) panicked at bitmap.rs:329:9:\\nassertion failed\\n")
    print("a line of Python", file=sys.stderr)
    raise ValueError
if sys.argv[1] == "command":
    keep_stderr()
with contextlib.suppress(ValueError), without_panics():
    fail()
with without_panics():
    native("shown\\n")
native("the end\\n")
"""


def stderr_of(kind: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, kind], capture_output=True, text=True, check=True
    )
    return done.stderr.splitlines()


def test_only_the_command_line_hides_a_panic() -> None:
    python = "a line of Python"
    assert stderr_of("command") == [python, "a warning", "shown", "the end"]
    panic = ["", "thread 'async-1' (17) panicked at bitmap.rs:329:9:", "assertion failed"]
    assert stderr_of("library") == ["a warning", *panic, python, "shown", "the end"]

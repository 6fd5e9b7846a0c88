"""The command ``cloudlab``, run in this process or in one of its own."""

import contextlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cloudlab.cli import main


def process(*args, env=None, cwd=None, stdin=""):
    """Run a command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "cloudlab", *map(str, args)],
        capture_output=True, text=True, input=stdin, cwd=cwd,
        env={**os.environ, **(env or {})}, check=False,
    )  # fmt: skip


def cloudlab(*args, env=None, cwd=None, stdin=""):
    """Run a command in this process, which spares it the start of Python."""
    out, err = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        stack.enter_context(contextlib.chdir(cwd or Path.cwd()))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        try:
            code = main([str(word) for word in args])
        except SystemExit as error:
            code = error.code
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())

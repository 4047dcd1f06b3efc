"""Processes that tests start, forked from one that has imported torch and Lightning already.

Importing them takes ten seconds and more, and a test that kills a training five times would wait
for it six times. All else is as in a Python that was just started: arguments, folder, environment,
streams, a script or module run as ``__main__``, handlers at the exit, death by signals. Tests of
what is imported, and of how long a start takes, need a Python of their own: ``subprocess``.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["lightning", "compressai.entropy_models", "picsnet.training.run"])


class Process:
    """``python SCRIPT ...`` or ``python -m MODULE ...``, the leader of a session; as Popen is used.

    ``command`` begins with ``sys.executable``, as it would for ``subprocess``.
    """

    def __init__(
        self, command: Sequence[str | Path], cwd: Path, env: Mapping[str, str] | None = None
    ) -> None:
        if command[0] != sys.executable:
            raise ValueError(f"not Python: {command[0]}")
        self._command = [str(word) for word in command]
        self._output = tempfile.TemporaryDirectory()
        self._streams = [Path(self._output.name, name) for name in ("stdout", "stderr")]
        for stream in self._streams:
            stream.touch()
        variables = dict(os.environ if env is None else env)
        arguments = (self._command[1:], str(cwd), variables, list(map(str, self._streams)))
        self._process = _FORKS.Process(target=_as_main, args=arguments)
        self._process.start()
        # Else a test that fails leaves it at work, and the end of the tests waits for it.
        weakref.finalize(self, _kill, self._process)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, a signal's number negative; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self._command, timeout)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait; what it wrote to stdout and to stderr."""
        self.wait(timeout)
        stdout, stderr = (path.read_text() for path in self._streams)
        return stdout, stderr


def run(
    command: Sequence[str | Path],
    cwd: Path,
    env: Mapping[str, str] | None = None,
    timeout: float = 240,
) -> subprocess.CompletedProcess[str]:
    """Start it and wait."""
    process = Process(command, cwd, env)
    stdout, stderr = process.communicate(timeout)
    return subprocess.CompletedProcess(list(command), process.wait(), stdout, stderr)


def _kill(process: ForkServerProcess) -> None:
    if process.is_alive():
        process.kill()


def _as_main(arguments: list[str], cwd: str, variables: dict[str, str], streams: list[str]) -> None:
    os.setsid()
    for descriptor, path in enumerate(streams, start=1):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    status: object = 1
    try:
        if arguments[0] == "-m":
            sys.path.insert(0, cwd)
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
        status = 0
    except SystemExit as ended:
        status = ended.code
    finally:
        atexit._run_exitfuncs()  # which processes of multiprocessing leave out
    sys.exit(status)

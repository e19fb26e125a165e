"""Servers as processes of their own: started, looked at from outside, and ended by their id."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import IO, Final, TypeVar

import anyio
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from streamkit.server.settings import ENV_PREFIX

from ._plain import Manner
from ._plan import Scene

START_LIMIT: Final = 30.0  # seconds; importing and binding take one, on a busy machine many
STOP_LIMIT: Final = 10.0  # seconds that a server may take to drain when nothing is in flight
WRITE_STALL: Final = 1.0  # seconds; the default is for real networks, here nobody is far away
_READY: Final = ": ready on "

K = TypeVar("K")


class CannotStart(Exception):
    """A server did not come up; the message says what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What a process holds, as the kernel counts it."""

    threads: int
    sockets: int
    files: int

    def over(self, before: Footprint) -> Footprint:
        """What it holds now and did not before."""
        return Footprint(
            threads=max(0, self.threads - before.threads),
            sockets=max(0, self.sockets - before.sockets),
            files=max(0, self.files - before.files),
        )


class Server:
    """A server's process; made by :func:`running`.

    Attributes:
        url: Where it listens, once it is ready.
    """

    __slots__ = ("_errors", "_process", "url")

    def __init__(self, process: Process, errors: IO[bytes]) -> None:
        self._process = process
        self._errors = errors
        self.url = ""

    async def wait_ready(self) -> None:
        """Return when it can answer.

        Raises:
            CannotStart: It ended, or was not ready in time.
        """
        assert self._process.stdout is not None
        line = ""
        with anyio.move_on_after(START_LIMIT):
            async for text in TextReceiveStream(self._process.stdout):
                line += text
                if "\n" in line:
                    break
        _, found, url = line.partition(_READY)
        if not found:
            raise CannotStart(f"a server {await self._why_not()}: {self.said() or 'no message'}")
        self.url = url.strip()

    async def _why_not(self) -> str:
        with anyio.move_on_after(1):  # its output has ended: so has it, or it never will
            return f"ended with status {await self._process.wait()} before it was ready"
        return f"was not ready within {START_LIMIT:g} s"

    def footprint(self) -> Footprint | None:
        """What it holds; None where there is no /proc to tell."""
        proc = Path(f"/proc/{self._process.pid}")
        try:
            threads = len(list((proc / "task").iterdir()))
            targets = [_target(each) for each in (proc / "fd").iterdir()]
        except OSError:
            return None
        sockets = sum(target.startswith("socket:") for target in targets)
        return Footprint(threads=threads, sockets=sockets, files=len(targets) - sockets)

    def said(self) -> str:
        """The last lines that it wrote to standard error."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip()[-2_000:]

    async def stop(self) -> int:
        """Have it drain, as an orchestrator would, and kill it if it does not; its exit status.

        Cancellation:
            It may still run; the end of :func:`running` does the same again.
        """
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            with anyio.move_on_after(STOP_LIMIT) as limit:
                await self._process.wait()
            if limit.cancelled_caught:
                self._process.kill()
        status = await self._process.wait()
        await self._process.aclose()  # its end of the pipe is ours to close
        return status

    def __repr__(self) -> str:
        return f"<Server {self._process.pid} at {self.url or 'no address yet'}>"


def serve(options: Mapping[str, float]) -> tuple[str, ...]:
    """The command line of ``streamkit serve`` over a fake engine with these options."""
    engine = [part for name, value in options.items() for part in _engine_option(name, value)]
    return (
        *(sys.executable, "-m", "streamkit.server.cli", "serve", "--host", "127.0.0.1"),
        # asyncio's own loop: its clock is the one of this process, uvloop's counts milliseconds.
        *("--port", "0", "--loop", "asyncio", "--write-stall", str(WRITE_STALL)),
        *("--access-log", "off", "--log-level", "warning", *engine),
    )


def plain(manner: Manner, engines: Mapping[Scene, Mapping[str, float]]) -> tuple[str, ...]:
    """The command line of the plain app over the same engines."""
    given = json.dumps({"manner": manner, "engines": engines})
    return (sys.executable, "-m", "streamkit.server.demo._plain", given)


@asynccontextmanager
async def running(commands: Mapping[K, Sequence[str]]) -> AsyncGenerator[dict[K, Server]]:
    """Start servers, all at once, until they are ready; at the end of the block all have ended.

    Raises:
        CannotStart: One of them ended, or was not ready in time.
    """
    servers: dict[K, Server] = {}
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_stop_all, servers)
        for key, command in commands.items():
            errors = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - it is in one
            servers[key] = Server(await _start(command, errors), errors)
        for server in servers.values():
            await server.wait_ready()
        yield servers


async def _start(command: Sequence[str], errors: IO[bytes]) -> Process:
    # What is set for the user's own server must not change this one.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ENV_PREFIX)}
    return await anyio.open_process(
        command, stdin=None, stdout=PIPE, stderr=errors, env=environment
    )


async def _stop_all(servers: Mapping[K, Server]) -> None:
    with anyio.CancelScope(shield=True):  # stop() limits itself
        async with anyio.create_task_group() as tasks:
            for server in servers.values():
                tasks.start_soon(server.stop)


def _engine_option(name: str, value: float) -> tuple[str, str]:
    return "--engine-option", f"{name}={value}"


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except OSError:  # closed since it was listed
        return ""

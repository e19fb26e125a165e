"""Server processes: started, watched from outside, and stopped by their process id."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.book import VARIABLE, Book
from benchmarks.client import encode
from benchmarks.environments import ROOT, environment
from benchmarks.peers import Peer

START_LIMIT = 120.0
STOP_LIMIT = 10.0
# Below the ports that the kernel gives to clients: no connection of ours can take one meanwhile.
PORTS = range(20_000, 32_000)
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Server:
    """One that runs."""

    peer: Peer
    port: int
    process: subprocess.Popen[bytes]
    book: Book
    log: Path
    rows: int = 1  # row 0 belongs to those who do not care

    def new_rows(self, count: int = 1) -> range:
        """Rows of the book that nobody has used."""
        self.rows += count
        return range(self.rows - count, self.rows)

    def request(
        self, shape: str, row: int = 0, n: int = 1_000_000_000, *, keep: bool = False
    ) -> bytes:
        """What is sent to have that source; without ``keep`` the answer ends the connection."""
        target, body = self.peer.ask(shape, row, n)
        return encode(target, body, keep=keep)

    def cpu(self) -> float:
        """Seconds of CPU that it and its workers have used."""
        return sum(cpu_of(pid) for pid in family(self.process.pid))

    def memory(self) -> float:
        """KiB that are resident, of it and its workers."""
        pages = [_statm(pid) for pid in family(self.process.pid)]
        return sum(pages) * PAGE / 1024

    def wait_ready(self) -> None:
        """Return when it can answer.

        Raises:
            CannotStart: It does not; with what it said last.
        """
        give_up = time.monotonic() + START_LIMIT
        while time.monotonic() < give_up and self.process.poll() is None:
            if is_ready(self.port, self.peer.ready):
                return
            time.sleep(0.02)
        said = self.log.read_text().strip().splitlines()[-3:]
        raise CannotStart(f"it did not start: {' / '.join(said)}")

    def stop(self) -> None:
        """Ask it to stop; kill it with its workers if it does not."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # Its own session, made below: the group holds this server and its workers only.
            with suppress_gone():
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class CannotStart(Exception):
    """The message is what it said."""


def is_ready(port: int, path: str) -> bool:
    """Whether it accepts connections, and answers 200 there."""
    with socket.socket() as probe, suppress(OSError):
        probe.settimeout(START_LIMIT)
        probe.connect(("127.0.0.1", port))
        if not path:
            return True
        probe.sendall(encode(path))
        return b" 200 " in probe.recv(1 << 16).split(b"\r\n")[0]
    return False


@contextmanager
def running(peers: Sequence[Peer], failed: dict[str, str]) -> Iterator[list[Server]]:
    """All of them, started at the same time; stopped at the end.

    One that does not start is noted in ``failed``, and missing.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers: list[Server] = []
        for peer in peers:
            servers.append(_start(peer, folder / peer.name.replace(" ", "-")))
            stack.callback(servers[-1].stop)
        yield [server for server in servers if _has_started(server, failed)]


def _has_started(server: Server, failed: dict[str, str]) -> bool:
    try:
        server.wait_ready()
    except CannotStart as error:
        failed[server.peer.name] = str(error)
    return server.peer.name not in failed


def _start(peer: Peer, folder: Path) -> Server:
    folder.mkdir()
    book = Book(folder / "book")
    port = free_port()
    command = [part.format(port=port, root=ROOT) for part in peer.command]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            executable=environment(peer.environment) / command[0],
            cwd=folder,
            env=environment_variables(peer, {VARIABLE: str(folder / "book")}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Server(peer, port, process, book, log)


def environment_variables(peer: Peer, more: Mapping[str, str]) -> dict[str, str]:
    """Those of the shell, with the peer's programs first."""
    path = f"{environment(peer.environment)}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path, **more}


def free_port() -> int:
    """A port that nobody listens on."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


# -- what the kernel knows of a process ------------------------------------------------------------


def family(pid: int) -> list[int]:
    """That process and all below it."""
    found = [pid]
    for parent in found:
        for tasks in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress_gone():
                found += [int(child) for child in tasks.read_text().split()]
    return found


def cpu_of(pid: int) -> float:
    """Seconds; of all threads, also of those that have ended, to the nanosecond."""
    with suppress_gone():
        # clock_getcpuclockid(3) by hand: /proc/PID/stat counts hundredths of a second.
        return time.clock_gettime((~pid << 3) | 2)
    return 0.0


def _statm(pid: int) -> int:
    with suppress_gone():
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return 0


@contextmanager
def suppress_gone() -> Iterator[None]:
    """A process may end while it is looked at."""
    try:
        yield
    except (ProcessLookupError, FileNotFoundError):
        pass
    except OSError as error:
        if error.errno != 22:  # EINVAL: no such process has that clock
            raise

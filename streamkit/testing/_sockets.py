"""The client's end of a TCP connection, and the ways in which it can go away."""

from __future__ import annotations

import array
import asyncio
import contextlib
import ctypes
import fcntl
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from enum import StrEnum
from typing import Final, Literal, Self

import anyio
import anyio.to_thread

RECEIVE_SIZE: Final = 65_536
DRAIN_LIMIT: Final = 1_000  # reads; a server that never stops sending must not keep us here
_SO_ATTACH_FILTER: Final = 26  # Linux; Python has no name for it
_SIOCOUTQ: Final = 0x5411  # Linux: bytes that were sent and are not acknowledged
_ACKNOWLEDGED_WITHIN: Final = 1.0  # seconds; an acknowledgement may be delayed by 40 ms
_DROP_ALL: Final = struct.pack("HBBI", 0x06, 0, 0, 0)  # classic BPF: return 0 bytes of the packet


class Leave(StrEnum):
    """How a client goes, named for what the server's kernel or the user sees."""

    FIN = "fin"
    """It closes: all that came was read before, so that no reset follows at once."""

    RST = "rst"
    """It closes with linger 0: the connection is reset."""

    HALF_CLOSE = "half_close"
    """It says that it will send no more, and goes on reading."""

    STOP_READING = "stop_reading"
    """It keeps the connection and never reads again. Nothing goes over the wire."""

    KILL = "kill"
    """The process that holds the connection is killed; what that means is left to the kernel."""

    VANISH = "vanish"
    """It is out of reach: its kernel drops what comes and answers nothing. Linux only."""

    TLS_CUT = "tls_cut"
    """It closes below TLS, without the close_notify that FIN sends there. https only."""


GONE: Final = frozenset({Leave.FIN, Leave.RST, Leave.KILL, Leave.TLS_CUT})
"""Ways after which the socket is closed."""


class _Waits:
    """Those who wait for a socket, so that they can be sent away before it is closed.

    The event loop would go on watching the number of a closed file descriptor, and be deaf to the
    next connection that gets the same number.
    """

    __slots__ = ("_scopes",)

    def __init__(self) -> None:
        self._scopes: dict[anyio.CancelScope, anyio.Event] = {}

    @contextlib.contextmanager
    def limited(self, timeout: float) -> Generator[None]:
        """Run a block for that long at most; it is left early, and quietly, by :meth:`end`."""
        with anyio.move_on_after(timeout) as scope:
            self._scopes[scope] = over = anyio.Event()
            try:
                yield
            finally:
                del self._scopes[scope]
                over.set()

    async def end(self) -> None:
        """Return when nobody waits any more."""
        waiting = list(self._scopes.items())
        for scope, _ in waiting:
            scope.cancel()
        for _, over in waiting:
            await over.wait()

    def __repr__(self) -> str:
        return f"<{len(self._scopes)} wait>"


class TcpEnd:
    """A socket with exact control over its end; each wait is limited to ``timeout`` real seconds.

    Attributes:
        left: How it left last.
        left_at: ``time.monotonic()`` just before the system call of that.
        cut_by: How the other side ended the connection, once this side has read it.
    """

    __slots__ = ("_receiving", "_sending", "_socket", "_timeout", "cut_by", "left", "left_at")

    def __init__(self, connected: socket.socket, timeout: float) -> None:
        self._socket = connected
        self._timeout = timeout
        self._receiving = _Waits()
        self._sending = _Waits()
        self.left: Leave | None = None
        self.left_at: float | None = None
        self.cut_by: Literal["fin", "rst"] | None = None

    @classmethod
    async def connect(
        cls, host: str, port: int, *, timeout: float, receive_buffer: int | None = None
    ) -> Self:
        """Connect; ``receive_buffer`` is SO_RCVBUF, which must be set before.

        Raises:
            OSError: Nobody listens there, or did not answer in time.
        """
        end = cls(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET), timeout)
        try:
            end._socket.setblocking(False)
            end._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if receive_buffer is not None:
                end._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            with anyio.move_on_after(timeout):
                await asyncio.get_running_loop().sock_connect(end._socket, (host, port))
                return end
        except BaseException:
            end.close()
            raise
        end.close()
        raise TimeoutError(f"no connection to {host}:{port} within {timeout:g} s")

    async def send(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            OSError: The other side has reset the connection, or did not take it in time.
            RuntimeError: This side has left.
        """
        with self._sending.limited(self._timeout):
            await asyncio.get_running_loop().sock_sendall(self._socket, data)
            return
        if self.left in GONE:
            raise RuntimeError(f"this client left ({self.left}) while it was sending")
        raise TimeoutError(f"{len(data):,} bytes could not be sent within {self._timeout:g} s")

    async def receive(self, waiting_for: Callable[[], str], most: int = RECEIVE_SIZE) -> bytes:
        """Return what has come, ``most`` bytes of it; ``b""`` when the other side has ended.

        Raises:
            RuntimeError: This side has left.
            TimeoutError: Nothing came in time; the message says what was waited for.
        """
        if self.left not in {None, Leave.HALF_CLOSE}:
            raise RuntimeError(f"this client has left ({self.left}) and reads no more")
        with self._receiving.limited(self._timeout):
            return await self._receive(most)
        if self.left not in {None, Leave.HALF_CLOSE}:
            raise RuntimeError(f"this client left ({self.left}) while it was reading")
        raise TimeoutError(f"nothing came within {self._timeout:g} s, {waiting_for()}")

    async def leave(self, how: Leave) -> None:
        """Go away in that way, and stamp :attr:`left_at`. What waits elsewhere for it is ended.

        Raises:
            ValueError: TLS_CUT, and there is no TLS.
            NotImplementedError: VANISH, and this is not Linux.

        Cancellation:
            The connection may still be there; it is closed with the client.
        """
        if how is Leave.TLS_CUT:
            raise ValueError("tls_cut leaves out TLS's close_notify: it needs an https URL")
        if how is Leave.VANISH and sys.platform != "linux":
            raise NotImplementedError("vanish needs Linux; put a FaultProxy with timeout between")
        self.left = how
        if how is not Leave.HALF_CLOSE:
            await self._receiving.end()
        if how in GONE:
            await self._sending.end()
        if how is Leave.VANISH:
            await self._wait_acknowledged()
        if how is Leave.KILL:
            await anyio.to_thread.run_sync(self._kill_holder)
        else:
            self._leave_at_once(how)

    def close(self) -> None:
        """Close the socket, however it was left; for cleaning up."""
        self._socket.close()

    async def _receive(self, most: int) -> bytes:
        try:
            data = await asyncio.get_running_loop().sock_recv(self._socket, most)
        except OSError:
            self.cut_by = "rst"
            return b""
        if not data:
            self.cut_by = self.cut_by or "fin"
        return data

    def _leave_at_once(self, how: Leave) -> None:
        if how is Leave.FIN:
            self._drain()
        elif how is Leave.RST:
            on, seconds = 1, 0
            linger = struct.pack("ii", on, seconds)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.left_at = time.monotonic()  # noqa: TID251 - compared with stamps of other processes
        with contextlib.suppress(OSError):  # the other side may have been faster
            if how is Leave.FIN:
                # Before close(), which would reset instead if a byte came since we drained.
                self._socket.shutdown(socket.SHUT_RDWR)
            elif how is Leave.HALF_CLOSE:
                self._socket.shutdown(socket.SHUT_WR)
            elif how is Leave.VANISH:
                self._drop_all_that_comes()
        if how in {Leave.FIN, Leave.RST}:
            self._socket.close()

    def _drain(self) -> None:
        with contextlib.suppress(OSError):  # nothing there, or a reset
            for _ in range(DRAIN_LIMIT):
                if not self._socket.recv(RECEIVE_SIZE):
                    return

    async def _wait_acknowledged(self) -> None:
        # Else our kernel, which sees no acknowledgement any more, would send it again and again:
        # from a host that is out of reach nothing comes.
        unacknowledged = array.array("i", [1])
        with anyio.move_on_after(_ACKNOWLEDGED_WITHIN):
            while True:
                fcntl.ioctl(self._socket, _SIOCOUTQ, unacknowledged)
                if not unacknowledged[0]:
                    return
                await anyio.sleep(0.001)

    def _drop_all_that_comes(self) -> None:
        # No packet filter of the machine's, which takes root and outlives us, but the socket's own:
        # our kernel acknowledges nothing, and resets nothing, as if the cable were pulled.
        program = ctypes.create_string_buffer(_DROP_ALL)
        length = len(_DROP_ALL) // 8  # instructions
        head = struct.pack("HL", length, ctypes.addressof(program))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)

    def _kill_holder(self) -> None:
        # Another process gets the socket and then is its only owner: killing it is what the server
        # sees of a killed client.
        holder = subprocess.Popen(
            [sys.executable, "-ISc", "import time; time.sleep(60)"],
            pass_fds=[self._socket.fileno()],
            stdin=subprocess.DEVNULL,
        )
        self._socket.close()
        self.left_at = time.monotonic()  # noqa: TID251 - compared with stamps of other processes
        holder.kill()
        holder.wait()

    def __repr__(self) -> str:
        cut = f", cut by {self.cut_by}" if self.cut_by else ""
        return f"<TcpEnd {f'left by {self.left}' if self.left else 'connected'}{cut}>"

"""How many connections may be open: who comes when it is full is told so, and sent away."""

from __future__ import annotations

import asyncio
import logging
import resource
from typing import Any, Final

from streamkit._core import now

from ._raw_answer import raw_answer

logger = logging.getLogger("streamkit.server")

RESERVED: Final = 256  # files that are kept for everything else: the engine, logs, libraries
LINGER: Final = 1.0  # seconds in which one that is sent away may hear why
LINGERING: Final = 64  # of them at once; more are closed without a word
LOG_EVERY: Final = 10.0  # seconds


class Seldom:
    """Says yes, and then no until some time is over: for lines that a flood must not multiply."""

    __slots__ = ("_next_at",)

    def __init__(self) -> None:
        self._next_at = 0.0

    def __call__(self) -> bool:
        """Whether it is time again."""
        if now() < self._next_at:
            return False
        self._next_at = now() + LOG_EVERY
        return True


class NoFilesLeft(logging.Filter):
    """Makes one line of what asyncio says, with a traceback, for each connection it cannot take."""

    def __init__(self) -> None:
        super().__init__()
        self._seldom = Seldom()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged."""
        if not str(record.msg).startswith("socket.accept() out of system resource"):
            return True
        record.msg = "no new connection can be taken: %s; raise `ulimit -n`"
        record.args = (record.exc_info[1] if record.exc_info else "no files are left",)
        record.exc_info = None
        return self._seldom()


class Connections:
    """Those that are open.

    Args:
        limit: How many may be.

    Attributes:
        open: They themselves; uvicorn adds and removes.
        turned_away: How many came when it was full.
    """

    __slots__ = ("_lingering", "_seldom", "limit", "open", "turned_away")

    def __init__(self, limit: int) -> None:
        self.limit: int = limit
        self.open: set[Any] = set()
        self.turned_away: int = 0
        self._lingering: set[_TurnedAway] = set()
        self._seldom = Seldom()

    @property
    def full(self) -> bool:
        """Whether there is room for no more."""
        return len(self.open) >= self.limit

    def turn_away(self, transport: asyncio.Transport) -> None:
        """Answer 503 to whatever it asks, and close it."""
        self.turned_away += 1
        if self._seldom():
            logger.warning(
                "%d connections are open, as many as may be (max_connections): %d turned away "
                "since the start",
                len(self.open),
                self.turned_away,
            )
        if len(self._lingering) >= LINGERING:
            transport.abort()
            return
        transport.set_protocol(_TurnedAway(transport, self._lingering))

    def __repr__(self) -> str:
        return f"<Connections {len(self.open)} of {self.limit}, {self.turned_away} turned away>"


class _TurnedAway(asyncio.Protocol):
    """Waits for the first bytes of a request, because who is closed before reads an error.

    It reads on behind its answer: a socket that is closed with something unread in it resets the
    connection, and with it an answer that has not been read.
    """

    def __init__(self, transport: asyncio.Transport, lingering: set[_TurnedAway]) -> None:
        self._transport = transport
        self._lingering = lingering
        self._answered = False
        lingering.add(self)
        self._timer = asyncio.get_running_loop().call_later(LINGER, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Its request, or a part of it; what it asks does not matter."""
        if self._answered:
            return
        self._answered = True
        self._transport.write(
            raw_answer(
                "503 Service Unavailable",
                kind="refused",
                code="too_many_connections",
                message="too many connections are open; try again",
                retry_after=1,
            )
        )
        self._transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone, or its time is over."""
        self._timer.cancel()
        self._lingering.discard(self)


def room_for(wanted: int) -> int:
    """Return how many connections there can be: as many as are wanted, if there are files for them.

    The process's soft limit is raised for them as far as the hard one allows.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVED
    if _is_less(soft, needed):
        soft = hard if _is_less(hard, needed) else needed
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if not _is_less(soft, needed):
        return wanted
    room = max(soft - RESERVED, soft // 4, 1)
    logger.warning(
        "max_connections is %d, but this process may open %d files: it takes %d connections; "
        "raise `ulimit -n`, or set a limit that fits",
        wanted,
        soft,
        room,
    )
    return room


def _is_less(limit: int, needed: int) -> bool:
    return limit != resource.RLIM_INFINITY and limit < needed

"""The disconnect watcher: a task beside the work that waits for the client to leave."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, MutableMapping
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any, Final, Protocol, runtime_checkable

import anyio

from streamkit.errors import UsageBug

from ._reason import Reason
from ._token import CancelSource

POLL_INTERVAL: Final = (
    0.5  # seconds; each poll costs 25 to 65 µs, a client is missed for half of it
)


class WatchMode(StrEnum):
    """How a watcher learns of the disconnect."""

    EVENT = "event"  # told by the server the moment it knows
    POLL = "poll"  # asks at an interval


@runtime_checkable
class Receivable(Protocol):
    """A request whose ``receive()`` we may park on (Starlette's ``Request``)."""

    def receive(self) -> Awaitable[MutableMapping[str, Any]]:
        """The next ASGI message."""
        ...

    async def body(self) -> bytes:
        """The whole body, which the request keeps for whoever asks later."""
        ...


@runtime_checkable
class Pollable(Protocol):
    """A request that can only be asked."""

    async def is_disconnected(self) -> bool:
        """Whether the client has gone."""
        ...


class DisconnectWatcher:
    """Cancels ``source`` when the client of ``request`` leaves.

    Used where streamkit's middleware is not installed; with it, the middleware tells the request's
    token directly and no watcher runs. Event mode reads the body first (the request keeps it) and
    then parks on ``receive()``. Poll mode asks ``is_disconnected()`` every ``interval`` seconds; it
    never hears anything behind Starlette's ``BaseHTTPMiddleware`` (measured), so event mode is the
    default wherever the request has a ``receive()``.

    Attributes:
        mode: Which of the two is in force.
    """

    __slots__ = ("_interval", "_left", "_prepared", "_request", "_source", "mode")

    def __init__(
        self,
        request: object,
        source: CancelSource,
        *,
        mode: WatchMode | None = None,
        interval: float = POLL_INTERVAL,
    ) -> None:
        if interval <= 0:
            raise ValueError(f"interval must be above 0 seconds, got {interval!r}")
        self._request = request
        self._source = source
        self._interval = interval
        self._prepared = False
        self._left = False
        self.mode: WatchMode = mode or _mode_for(request)

    async def prepare(self) -> None:
        """Read the body, which the request keeps; to be awaited before the work begins.

        Until it was read, the next message is a piece of it, and not ours; asking throws it away on
        every server, and two readers at a time get a false disconnect on one (measured).
        """
        if not self._prepared and isinstance(self._request, Receivable):
            self._left = await _left_while_reading(self._request)
        self._prepared = True

    async def run(self) -> None:
        """Return when the client has left; the source is cancelled then.

        Cancellation:
            Stops watching; the source is not touched.
        """
        await self.prepare()
        if not self._left:
            await (self._wait_told() if self.mode is WatchMode.EVENT else self._ask())
        self._source.cancel(Reason.CLIENT_DISCONNECT, f"the client left ({self.mode})")

    async def _wait_told(self) -> None:
        assert isinstance(self._request, Receivable)
        while not _is_disconnect(await self._request.receive()):
            pass

    async def _ask(self) -> None:
        assert isinstance(self._request, Pollable)
        while not await self._request.is_disconnected():  # noqa: ASYNC110 - there is no event to wait for
            await anyio.sleep(self._interval)

    def __repr__(self) -> str:
        return f"<DisconnectWatcher {self.mode} {self._source.token!r}>"


@asynccontextmanager
async def beside(
    watch: Callable[[], Coroutine[Any, Any, object]], name: str
) -> AsyncGenerator[None]:
    """Run ``watch`` in a task beside a block, and end it with the block.

    An error of the block leaves as it is; a task group alone would wrap it.
    """
    error: BaseException | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, name=name)
        try:
            yield
        except BaseException as raised:  # noqa: ASYNC103, BLE001 - raised again, outside the group
            error = raised
        tasks.cancel_scope.cancel()
    if error is not None:
        raise error


async def _left_while_reading(request: Receivable) -> bool:
    try:
        await request.body()
    except Exception as error:
        # Starlette's; it cannot be imported here, and other frameworks named theirs after it.
        if type(error).__name__ != "ClientDisconnect":
            raise
        return True
    return False


def _is_disconnect(message: Mapping[str, Any]) -> bool:
    return message["type"] in {"http.disconnect", "websocket.disconnect"}


def _mode_for(request: object) -> WatchMode:
    if isinstance(request, Receivable):
        return WatchMode.EVENT
    if isinstance(request, Pollable):
        return WatchMode.POLL
    raise UsageBug(
        f"cannot watch {type(request).__name__}: it has neither receive() with body() nor "
        "is_disconnected(); pass the request that the framework gave you. What a websocket "
        "receives is its reader's alone: for one, install streamkit.asgi.CancellationMiddleware"
    )

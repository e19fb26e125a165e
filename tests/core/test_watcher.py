"""The disconnect watcher: told or asking, and which of the two it is can be seen."""

import anyio
import pytest

from streamkit._core import CancelSource, DisconnectWatcher, Reason, WatchMode
from streamkit.errors import UsageBug


class Told:
    """A request that can be parked on."""

    def __init__(self) -> None:
        self.read = False
        self.left = anyio.Event()

    async def body(self) -> bytes:
        self.read = True
        return b"{}"

    async def receive(self):
        assert self.read, "a watcher that reads before the body was read steals it"
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def is_disconnected(self) -> bool:
        return self.left.is_set()


class Asked:
    """A request that only answers questions."""

    def __init__(self, leaves_at: float) -> None:
        self.leaves_at = leaves_at
        self.questions = 0

    async def is_disconnected(self) -> bool:
        self.questions += 1
        return anyio.current_time() >= self.leaves_at


async def test_a_request_with_receive_is_told_the_moment_the_client_leaves():
    request, source = Told(), CancelSource()
    watcher = DisconnectWatcher(request, source)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watcher.run)
        await anyio.sleep(1.25)
        request.left.set()
    left_at = anyio.current_time()

    assert watcher.mode is WatchMode.EVENT
    assert source.token.cancellation is not None
    assert source.token.cancellation.reason is Reason.CLIENT_DISCONNECT
    assert source.token.cancellation.at == left_at


async def test_a_request_that_can_only_be_asked_is_asked_at_the_interval():
    begun = anyio.current_time()
    request, source = Asked(leaves_at=begun + 1.3), CancelSource()
    watcher = DisconnectWatcher(request, source, interval=0.5)
    await watcher.run()

    assert watcher.mode is WatchMode.POLL
    assert repr(watcher).startswith("<DisconnectWatcher poll")
    assert anyio.current_time() == pytest.approx(begun + 1.5)
    assert request.questions == 4


async def test_poll_mode_can_be_asked_for():
    request, source = Told(), CancelSource()
    request.left.set()
    await DisconnectWatcher(request, source, mode=WatchMode.POLL).run()

    assert request.read
    assert source.token.cancelled


async def test_what_cannot_be_watched_is_refused_by_name():
    with pytest.raises(UsageBug, match="cannot watch dict: it has neither receive"):
        DisconnectWatcher({}, CancelSource())


async def test_an_interval_of_nothing_is_refused():
    with pytest.raises(ValueError, match="interval must be above 0 seconds, got 0"):
        DisconnectWatcher(Asked(0), CancelSource(), interval=0)


async def test_a_client_that_leaves_while_the_body_is_read_has_left():
    class ClientDisconnect(Exception):
        pass

    class Leaves(Told):
        async def body(self) -> bytes:
            raise ClientDisconnect

    source = CancelSource()
    await DisconnectWatcher(Leaves(), source).run()

    assert source.token.cancelled

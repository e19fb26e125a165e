"""What of a request still runs: calls in threads, coroutines, generators; exact, to the last."""

from __future__ import annotations

from collections.abc import Callable

import anyio


class Work:
    """Counts the pieces that run, and says when none is left.

    Only counting them tells when a slot is free again: a cancelled thread runs on until its
    function ends, and nothing else would notice that.

    Args:
        outer: Counts each piece as well: the request's own, around the part in the slot.
    """

    __slots__ = ("_idle", "_outer", "_then", "pieces")

    def __init__(self, outer: Work | None = None) -> None:
        self._outer = outer
        self._idle: anyio.Event | None = None
        self._then: Callable[[], object] | None = None
        self.pieces: int = 0

    def begin(self) -> Callable[[], None]:
        """A piece begins; call what this returns at its end, once or more often."""
        self.pieces += 1
        end_outer = self._outer.begin() if self._outer else None
        ended = False

        def end() -> None:
            nonlocal ended
            if ended:
                return
            ended = True
            self.pieces -= 1
            if end_outer is not None:
                end_outer()
            self._look()

        return end

    def hold(self) -> Callable[[], None]:
        """As a piece, but of this part alone: the outer one does not count it."""
        self.pieces += 1

        def free() -> None:
            self.pieces -= 1
            self._look()

        return free

    def when_idle(self, then: Callable[[], object]) -> None:
        """Call ``then()``, once, as soon as no piece is left: now, if none is."""
        self._then = then
        self._look()

    async def wait_idle(self, timeout: float) -> bool:
        """Wait until no piece is left; False when that took more than ``timeout`` seconds.

        Cancellation:
            Stops waiting.
        """
        if not self.pieces:  # as mostly: then a scope is most of what this would cost
            return True
        with anyio.move_on_after(timeout):
            while self.pieces:
                self._idle = self._idle or anyio.Event()
                await self._idle.wait()
        return not self.pieces

    def _look(self) -> None:
        if self.pieces:
            return
        idle, self._idle = self._idle, None
        if idle is not None:
            idle.set()
        then, self._then = self._then, None
        if then is not None:
            then()

    def __repr__(self) -> str:
        return f"<Work {self.pieces} pieces>"

"""What a reader holds of a generation: an async iterator whose loss is noticed."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Self

from streamkit._core import Cancellation, Phase

from ._base import Chunk, StopReport, Usage
from ._run import EngineRun


class GenerationHandle:
    """The :class:`Generation` that engines hand out.

    It and its run are two objects because the engine and the cancel token hold the run, strongly:
    only so can a reader who walks away without closing be told from one who is slow.
    """

    __slots__ = ("__weakref__", "run")

    def __init__(self, run: EngineRun) -> None:
        self.run = run

    @property
    def request_id(self) -> str:
        """Its id, unique among those in flight."""
        return self.run.request_id

    @property
    def phase(self) -> Phase:
        """Queued, prefill, decode, aborting, or how it ended."""
        return self.run.phase

    @property
    def cancellation(self) -> Cancellation | None:
        """The first cancel, or None."""
        return self.run.cancellation

    @property
    def usage(self) -> Usage:
        """The books of it."""
        return self.run.usage

    @property
    def limit(self) -> int | None:
        """Tokens that it may make, of all choices together; None when the engine does not say."""
        return self.run.limit

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[Chunk]:
        # The run's own coroutine: one frame less for each token than an async def here.
        return self.run.next()

    def cancel(self, cancellation: Cancellation) -> bool:
        """Have the engine told to abort; True for the call that did."""
        return self.run.cancel(cancellation)

    async def wait_stopped(self, timeout: float | None = None) -> StopReport:
        """Wait for the engine's end of it and say what proves it; never cancels by itself.

        Cancellation:
            Stops waiting; nothing is changed.
        """
        return await self.run.wait_stopped(timeout)

    async def abort_again(self) -> None:
        """Send the abort once more."""
        await self.run.abort_again()

    async def kill(self) -> bool:
        """End it by force, where the engine can; False where it cannot."""
        return await self.run.kill()

    async def aclose(self) -> None:
        """Cancel if it still runs, and release the iterator; does not wait for the proof."""
        self.run.close()

    def __repr__(self) -> str:
        return f"<Generation of {self.run!r}>"

    def __del__(self) -> None:
        self.run.drop()

"""What a preprocess handed on and nobody closed: generators, closed when their request is over."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import AsyncGenerator, Generator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import anyio

from streamkit._core import NEVER, Interrupted, current_loop
from streamkit.streams import CLOSE_GRACE, Step, call_in_thread

from ._work import Work

logger = logging.getLogger("streamkit.runner")

Leftover: TypeAlias = AsyncGenerator[Any, Any] | Generator[Any, Any, Any]


class Leftovers:
    """The generators of one request; left to themselves, the garbage collector would end them."""

    __slots__ = ("_kept", "_work")

    def __init__(self, work: Work) -> None:
        self._work = work
        self._kept: list[Leftover] = []

    def keep(self, value: object) -> None:
        """Remember it, if it is a generator."""
        if inspect.isasyncgen(value) or inspect.isgenerator(value):
            self._kept.append(value)

    def __bool__(self) -> bool:
        return bool(self._kept)

    async def aclose(self) -> None:
        """Close them, one by one. Errors of theirs are logged.

        Cancellation:
            Shielded, and limited to 5 s each.
        """
        while self._kept:  # a server's own cancel goes through the shield
            await self._close(self._kept.pop())

    async def _close(self, generator: Leftover) -> None:
        try:
            with _shield():
                if isinstance(generator, AsyncGenerator):
                    await _close_here(generator)
                else:
                    await self._close_in_thread(generator)
        except (Exception, KeyboardInterrupt, SystemExit):  # the last ones would end the server
            logger.exception("the cleanup of %r failed", generator)

    async def _close_in_thread(self, generator: Generator[Any, Any, Any]) -> None:
        with anyio.move_on_after(CLOSE_GRACE) as limit:
            await call_in_thread(generator.close, (), {}, token=NEVER, on_end=self._work.begin())
        if limit.cancelled_caught:
            _report_slow(generator)


async def _close_here(generator: AsyncGenerator[Any, Any]) -> None:
    # Limited by a timer: a scope that the generator holds (a task group) could not end in ours.
    loop = current_loop()
    step = Step(loop, CLOSE_GRACE, f"the cleanup of {generator!r}")
    timer = loop.call_at(loop.now() + CLOSE_GRACE, step.stop)
    try:
        await step.run(generator.aclose())
    except Interrupted:
        _report_slow(generator)
    except BaseExceptionGroup as group:
        # What a task group makes of the GeneratorExit that passes through it.
        if group.split(GeneratorExit)[1] is not None:
            raise
    finally:
        timer.cancel()


def _shield() -> AbstractContextManager[object]:
    """Only where a scope around us is cancelled, for the same reason."""
    if anyio.current_effective_deadline() == -math.inf:
        return anyio.CancelScope(shield=True)
    return nullcontext()


def _report_slow(generator: Leftover) -> None:
    logger.error("the cleanup of %r took longer than %g s", generator, CLOSE_GRACE)

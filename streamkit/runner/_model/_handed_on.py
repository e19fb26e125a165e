"""A generator that a preprocess handed on, and that nobody closed: closed with its request."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any, TypeAlias, TypeGuard

import anyio

from streamkit._core import NEVER, Interrupted, current_loop, shield_if_cancelled
from streamkit.streams import CLOSE_GRACE, Step, call_in_thread

from ._output import Output
from ._work import Work

logger = logging.getLogger("streamkit.runner")

Handed: TypeAlias = AsyncGenerator[Any, Any] | Generator[Any, Any, Any]


def is_handed_on(value: object) -> TypeGuard[Handed]:
    """Whether somebody has to close it."""
    return inspect.isasyncgen(value) or inspect.isgenerator(value)


class HandedOn:
    """The generator of one request; left to itself, the garbage collector would end it.

    Attributes:
        closed: Whether it was closed, or is being closed.
    """

    __slots__ = ("_generator", "_work", "closed")

    def __init__(self, generator: Handed, work: Work) -> None:
        self._generator = generator
        self._work = work
        self.closed: bool = False

    async def aclose_behind(self, close: Callable[[], Awaitable[object]]) -> None:
        """Await ``close()``, of what reads it, and close it here and now if nothing else does.

        A task group that it holds across its yields has to be left by the task that entered it.
        """
        end = self._work.begin()
        try:
            await close()
            if self._work.pieces == 1:
                await self.aclose()
        finally:
            end()

    async def aclose(self) -> None:
        """Close it. An error of its own is logged.

        Cancellation:
            Shielded, and limited to 5 s.
        """
        if self.closed:
            return
        self.closed, generator = True, self._generator
        try:
            with shield_if_cancelled():
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


class ReadingOutput(Output):
    """A stream of code that reads what was handed on, which goes with it when it is cut short.

    After a whole answer that is closed behind the last byte, with the request.
    """

    __slots__ = ("_handed_on",)

    def __init__(self, handed_on: HandedOn, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._handed_on = handed_on

    async def aclose(self) -> None:
        """Close what is iterated, and what that has read."""
        if self.why_partial is None:
            await super().aclose()
        else:
            await self._handed_on.aclose_behind(super().aclose)


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


def _report_slow(generator: Handed) -> None:
    logger.error("the cleanup of %r took longer than %g s", generator, CLOSE_GRACE)

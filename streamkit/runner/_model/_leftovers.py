"""What a preprocess handed on and nobody closed: generators, closed when their request is over."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncGenerator, Generator
from typing import Any, TypeAlias

import anyio

from streamkit._core import NEVER
from streamkit.streams import CLOSE_GRACE, call_in_thread

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
        """Close them. Errors of theirs are logged.

        Cancellation:
            Shielded, and limited to 5 s.
        """
        if not self._kept:
            return
        with anyio.move_on_after(CLOSE_GRACE, shield=True) as limit:
            while self._kept:  # one by one: a server's own cancel goes through the shield
                await self._close(self._kept.pop())
        if limit.cancelled_caught:
            logger.error("the cleanup of a generator took longer than %g s", CLOSE_GRACE)

    async def _close(self, generator: Leftover) -> None:
        try:
            if isinstance(generator, AsyncGenerator):
                await generator.aclose()
            else:
                await call_in_thread(
                    generator.close, (), {}, token=NEVER, on_end=self._work.begin()
                )
        except (Exception, KeyboardInterrupt, SystemExit):  # the last ones would end the server
            logger.exception("the cleanup of %r failed", generator)

"""What a preprocess handed on and nobody closed: generators, closed when their request is over."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncGenerator, Generator
from typing import Any, TypeAlias

import anyio

from streamkit._core import NEVER
from streamkit.streams import CLOSE_GRACE, call_in_thread

logger = logging.getLogger("streamkit.runner")

Leftover: TypeAlias = AsyncGenerator[Any, Any] | Generator[Any, Any, Any]


class Leftovers:
    """The generators of one request; left to themselves, the garbage collector would end them."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: list[Leftover] = []

    def keep(self, value: object) -> None:
        """Remember it, if it is a generator."""
        if inspect.isasyncgen(value) or inspect.isgenerator(value):
            self._kept.append(value)

    async def aclose(self) -> None:
        """Close them. Errors of theirs are logged.

        Cancellation:
            Shielded, and limited to 5 s.
        """
        if not self._kept:
            return
        kept, self._kept = self._kept, []
        with anyio.move_on_after(CLOSE_GRACE, shield=True) as limit:
            for each in kept:
                await _close(each)
        if limit.cancelled_caught:
            logger.error("the cleanup of %r took longer than %g s", kept, CLOSE_GRACE)


async def _close(generator: Leftover) -> None:
    try:
        if isinstance(generator, AsyncGenerator):
            await generator.aclose()
        else:
            await call_in_thread(generator.close, (), {}, token=NEVER)
    except Exception:
        logger.exception("the cleanup of %r failed", generator)

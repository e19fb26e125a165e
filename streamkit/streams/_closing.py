"""How a sync generator is closed, also one that resists."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Generator
from types import GeneratorType
from typing import Any, Final, TypeGuard, cast

from ._thread_job import report_late_error

logger = logging.getLogger("streamkit.streams")

CLOSE_ATTEMPTS: Final = 8  # GeneratorExits thrown into a generator that yields in its cleanup


def is_fresh(generator: object) -> TypeGuard[Generator[Any, Any, Any]]:
    """Whether nothing of it has run yet, so that closing it runs nothing of the user's."""
    return _state(generator) == inspect.GEN_CREATED


def close_iterator(iterator: object, name: str) -> None:
    """Call ``close()`` if it has one. Never raises: its reader has gone, so errors are logged.

    A generator that yields in its cleanup is closed again, because what is left suspended would be
    closed by the garbage collector, in whatever thread that runs.
    """
    close = getattr(iterator, "close", None)
    if close is None:
        return
    for attempt in range(CLOSE_ATTEMPTS):
        try:
            close()
        except BaseException as error:  # noqa: ASYNC103, BLE001 - in a thread: there is no cancel
            if _state(iterator) != inspect.GEN_SUSPENDED:
                report_late_error(name, error)
        if _state(iterator) != inspect.GEN_SUSPENDED:
            if attempt:
                logger.warning("%s yielded %d times while it was closed", name, attempt)
            return
    logger.error(
        "%s ignores GeneratorExit: it yielded %d times while it was closed, and is left as it is",
        name,
        CLOSE_ATTEMPTS,
    )


def _state(iterator: object) -> str | None:
    if not isinstance(iterator, GeneratorType):
        return None
    return inspect.getgeneratorstate(cast("Generator[Any, Any, Any]", iterator))

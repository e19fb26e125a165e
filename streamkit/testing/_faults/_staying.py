"""Reads on beside whatever a client stays for, over HTTP/1.1 and HTTP/2 alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import anyio

from streamkit.testing._http1 import BadResponse

Stay: TypeAlias = Callable[[], Awaitable[object]]


async def read_while(stay: Stay, read: Stay) -> None:
    """Read until ``stay`` returns or ``read`` does, whichever is first.

    Raises:
        OSError, BadResponse: Reading did; only once both have ended.
    """
    failed: list[Exception] = []

    async def read_on() -> None:
        try:
            await read()
        except (OSError, BadResponse) as error:
            failed.append(error)
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read_on)
        await stay()
        tasks.cancel_scope.cancel()
    if failed:
        raise failed[0]

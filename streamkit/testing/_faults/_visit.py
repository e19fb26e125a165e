"""One client makes one request and does what its fault says; it reports what it saw."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import anyio

from streamkit._core import now
from streamkit.testing._clients import open_connection
from streamkit.testing._http1 import BadResponse
from streamkit.testing._http2 import open_http2

from ._http1_client import Client
from ._http2_client import HTTP1_ONLY, StreamClient
from ._menu import Fault
from ._seen import Ask, Seen

STAY: Final = 5.0  # seconds
_SMALL_BUFFER: Final = 4_096  # bytes; a server sees at once that nobody reads
_READS_LITTLE: Final = frozenset({"slow", "stop_reading"})

Stay: TypeAlias = Callable[[], Awaitable[object]]


async def _stay() -> None:
    await anyio.sleep(STAY)


async def visit(ask: Ask, fault: Fault | str, *, stay: Stay = _stay) -> Seen:
    """Make the request, and do to it what the fault says.

    What goes wrong on the way (nobody listens, the server resets, it does not answer in time) is
    in the report: for a client that came to break something, it is an observation.

    Args:
        ask: The request.
        fault: A fault, or its text.
        stay: How long one remains that stops reading, reads slowly, vanishes or waits behind its
            half-close: until this returns; five seconds. Then its connection is closed.

    Raises:
        ValueError: The text says no fault, or one that there is not over HTTP/2.
        ModuleNotFoundError: It is over HTTP/2, and the package ``h2`` is not installed.

    Cancellation:
        Closes the connection.
    """
    fault = Fault.parse(fault) if isinstance(fault, str) else fault
    seen = Seen(fault=str(fault), began_at=now())
    http2 = ask.http2 or fault.over == "h2"
    if http2 and (fault.way in HTTP1_ONLY or fault.phase in HTTP1_ONLY):
        raise ValueError(f"there is no {fault} over HTTP/2")
    times = int(fault.amount or 1) if fault.way == "storm" else 1
    for number in range(1, times + 1):
        if number > 1:
            seen = Seen(fault=str(fault), began_at=seen.began_at, visits=number)
        try:
            await (_over_http2 if http2 else _over_http1)(ask, fault, seen, stay)
        except (OSError, BadResponse, RuntimeError) as error:
            seen.error = f"{type(error).__name__}: {error}"
    seen.ended_at = now()
    return seen


async def _over_http1(ask: Ask, fault: Fault, seen: Seen, stay: Stay) -> None:
    buffer = _SMALL_BUFFER if fault.way in _READS_LITTLE else None
    async with open_connection(
        ask.url, timeout=ask.timeout, receive_buffer=buffer, tls=ask.tls
    ) as connection:
        seen.connected_at = now()
        client = Client(connection, ask, seen)
        seen.reached = await client.come_to(fault.phase, fault.at)
        await client.leave(fault.way, fault.amount, stay)


async def _over_http2(ask: Ask, fault: Fault, seen: Seen, stay: Stay) -> None:
    async with open_http2(ask.url, timeout=ask.timeout, tls=ask.tls) as connection:
        seen.connected_at = now()
        client = StreamClient(connection, ask, seen)
        seen.reached = await client.come_to(fault.phase, fault.at)
        await client.leave(fault.way, fault.amount, stay)

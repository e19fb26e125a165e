"""HTTP to an upstream: one client, bounded in everything, whose errors say who has to act.

The only module that imports httpx2, which is optional: it is imported when an engine is made.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import anyio
import httpx2

from streamkit.errors import EngineFailed, RequestRefused

from ._refusal import RETRY_AFTER, message_in, refusal, seconds_of

logger = logging.getLogger("streamkit.engines")

# Below the five seconds after which uvicorn and Node close an idle connection: a request that meets
# its end would fail, and one that may have begun is never sent again.
KEEP_ALIVE: Final = 2.0
ERROR_BYTES: Final = 1 << 16
ERROR_SECONDS: Final = 5.0

OnSent = Callable[[], None]


class Http:
    """One upstream.

    Args:
        base_url: Its API, up to and with ``/v1``.
        api_key: Sent as a bearer token, or None.
        connections: At once.
        connect_timeout: Seconds that a connection may take, and a write.
        read_timeout: Seconds that the upstream may be silent, before its answer and within.
        trust_env: Whether proxies and ``.netrc`` are taken from the environment.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None,
        connections: int,
        connect_timeout: float,
        read_timeout: float,
        trust_env: bool,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        url = httpx2.URL(self.base_url)
        self._host = url.netloc.decode()
        self._read_timeout = read_timeout
        headers = {"accept-encoding": "identity"}
        if api_key is not None:
            headers["authorization"] = f"Bearer {api_key}"
        self._client = httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(connect_timeout, read=read_timeout),
            limits=httpx2.Limits(max_connections=connections, keepalive_expiry=KEEP_ALIVE),
            trust_env=trust_env,
        )

    @asynccontextmanager
    async def stream(
        self, path: str, body: dict[str, Any], request_id: str, on_sent: OnSent | None = None
    ) -> AsyncGenerator[AsyncIterator[bytes]]:
        """Ask for a stream, and give its bytes; the connection is closed with the block.

        Args:
            path: Below the base URL.
            body: What is asked, as JSON.
            request_id: For ``x-request-id``.
            on_sent: Called when the request begins to go out: until then nobody has heard of it.

        Raises:
            BadPayload: The upstream refuses the body.
            RequestRefused: It cannot be reached, or is full.
            EngineFailed: It failed, or what it answers is no stream.
        """

        async def trace(event: str, _: object) -> None:
            if on_sent is not None and event.endswith("send_request_headers.started"):
                on_sent()

        asked = self._client.stream(
            "POST",
            self.base_url + path,
            json=body,
            headers={"x-request-id": request_id, "accept": "text/event-stream"},
            extensions={"trace": trace},
        )
        async with self._in_our_words(), asked as response:
            if not response.is_success:
                raise await _refused(response)
            kind = response.headers.get("content-type", "none")
            if not kind.startswith("text/event-stream"):
                raise EngineFailed(f"the upstream was asked for a stream and sent {kind[:80]}")
            async with _body_of(response) as pieces:
                yield pieces  # noqa: ASYNC119 - it is a context manager

    async def get(self, path: str) -> Any:
        """Return the JSON at a path, or None where there is nothing.

        Raises:
            RequestRefused: See :meth:`stream`.
            EngineFailed: See there.
        """
        async with self._in_our_words():
            response = await self._client.get(self.base_url + path)
            if response.status_code == 404:
                return None
            if not response.is_success:
                raise await _refused(response)
            try:
                return response.json()
            except ValueError as error:
                raise EngineFailed(f"{path} of the upstream is no JSON: {error}") from error

    async def post(self, url: str, body: Any) -> None:
        """Post JSON; that there is nothing (any more) is no error.

        Raises:
            RequestRefused: See :meth:`stream`.
            EngineFailed: See there.
        """
        async with self._in_our_words():
            response = await self._client.post(url, json=body)
            if not response.is_success and response.status_code != 404:
                raise await _refused(response)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    @asynccontextmanager
    async def _in_our_words(self) -> AsyncGenerator[None]:
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            told = f"the upstream at {self._host} cannot be reached: {_said(error)}"
            logger.warning("%s", told)
            raise RequestRefused(told, retry_after=RETRY_AFTER, status=503) from error
        except httpx2.ReadTimeout as error:
            told = f"the upstream at {self._host} said nothing for {self._read_timeout:.3g} s"
            raise EngineFailed(told) from error
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            told = f"the connection to the upstream at {self._host} broke off: {_said(error)}"
            raise EngineFailed(told) from error

    def __repr__(self) -> str:
        return f"<Http to {self._host}>"


async def _refused(response: httpx2.Response) -> Exception:
    """The error that an answer means; of a long or slow one its beginning, or its status alone."""
    body = b""
    async with _body_of(response) as pieces:
        with anyio.move_on_after(ERROR_SECONDS):
            while len(body) < ERROR_BYTES and (piece := await anext(pieces, None)):
                body += piece
    message = message_in(body[:ERROR_BYTES].decode(errors="replace")) or response.reason_phrase
    after = seconds_of(response.headers.get("retry-after"))
    return refusal(response.status_code, message, after)


@asynccontextmanager
async def _body_of(response: httpx2.Response) -> AsyncGenerator[AsyncIterator[bytes]]:
    """The body as it comes; behind the block it is closed, however much of it was read."""
    pieces = response.aiter_bytes()
    try:
        yield pieces
    finally:
        await response.aclose()  # shielded in there
        # httpx2 reads through generators in generators. Half-read, they would be collected, and
        # asyncio would close each in a task that nobody owns: here they run into the closed end.
        with suppress(httpx2.HTTPError, httpx2.StreamError):
            async for _ in pieces:  # noqa: ASYNC102 - the end is closed: nothing waits
                pass


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__

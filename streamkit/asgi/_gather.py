"""Reads a stream so that what is ready without waiting goes out in one send."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any, Final, NamedTuple, Protocol, Self

import anyio

from streamkit._core import CancelToken, Loop, current_loop, resume
from streamkit.streams import BREATHE_EVERY, Countable, ThreadedGenerator

QUICK: Final = 0.000_05  # seconds; a chunk that takes longer was waited for, or is computed here
TRUST_AFTER: Final = BREATHE_EVERY  # quick chunks
DOUBT: Final = 8  # times as many quick chunks are needed to trust again
PATIENCE: Final = 0.001  # seconds that a chunk may lie here while further ones are ready
LIMIT: Final = 64  # chunks in one send

Steps = Generator[Any, Any, Any]


class Write(Protocol):
    """Sends a piece of the body."""

    def __call__(self, data: bytes, *, more: bool = True) -> Awaitable[None]: ...


class Writer(NamedTuple):
    """How chunks become the pieces of a body.

    Attributes:
        encode: One chunk as bytes; none, while only part of a character is there.
        last: The end of the body, after so many chunks.
        write: Sends a piece.
    """

    encode: Callable[[Any], bytes]
    last: Callable[[int], bytes]
    write: Write


def gather(chunks: AsyncIterator[Any], token: CancelToken, writer: Writer) -> Awaitable[None]:
    """Write all ``chunks`` and the end of the body; no end after a cancel.

    Each goes out as it comes. Only a generator that has shown, 16 times, to have its next chunk at
    hand is asked for that before the last one is written; what it then gives goes out together:
    when it waits, after 64 chunks, after a millisecond. So no chunk waits for one that is not
    there. One that takes long to come back without waiting (it computes in the loop) is not asked
    ahead any more until it has shown to be quick for longer.

    Any other iterator may count a chunk as taken when it is asked for the next one, unless it is
    :class:`Countable`: it is told what was written.
    """
    if isinstance(chunks, ThreadedGenerator):
        return _read_batches(chunks, token, writer)
    return _Reader(chunks, token, writer).read()


async def _read_batches(chunks: ThreadedGenerator[Any], token: CancelToken, writer: Writer) -> None:
    encode, last, write = writer
    count = 0
    while batch := await chunks.next_batch():
        count += len(batch)
        if data := b"".join([encode(chunk) for chunk in batch]):
            await write(data)
    if not token.cancelled:
        await write(last(count), more=False)


class _Reader:
    """One async iterator, and what came out of it and was not written yet."""

    __slots__ = (
        "_asked",
        "_chunks",
        "_count",
        "_counts",
        "_loop",
        "_may_ask_ahead",
        "_ready",
        "_token",
        "_trust_after",
        "_writer",
    )

    def __init__(self, chunks: AsyncIterator[Any], token: CancelToken, writer: Writer) -> None:
        self._chunks = chunks
        self._token = token
        self._writer = writer
        self._loop: Loop = current_loop()
        self._counts = chunks if isinstance(chunks, Countable) else None
        asks_alike = self._counts.may_ask_ahead if self._counts else inspect.isasyncgen(chunks)
        self._may_ask_ahead = asks_alike and self._loop.steps_by_hand
        self._count = 0
        self._trust_after = TRUST_AFTER
        self._ready: list[bytes] = []
        self._asked = 0.0  # when the generator began to look for its next chunk

    async def read(self) -> None:
        """Read it to its end."""
        try:
            while await self._read_singly() and await self._read_ahead():
                pass
        except Exception:
            if not self._token.cancelled:
                await self._flush()  # noqa: ASYNC120 - what came before the error
            raise
        if self._token.cancelled:  # the generator swallowed it
            return
        await self._flush()
        await self._writer.write(self._writer.last(self._count), more=False)

    async def _read_singly(self) -> bool:
        """Write each chunk as it comes, until many were quick; False at the end."""
        now, token, (encode, _, write) = self._loop.now, self._token, self._writer
        quick = 0
        asked = now()
        async for chunk in self._chunks:
            if token.cancelled:
                return False
            quick += now() - asked < QUICK
            if data := encode(chunk):
                await write(data)
            self._count += 1
            if not self._count % BREATHE_EVERY:
                await self._loop.breathe()
                if quick >= self._trust_after and self._may_ask_ahead:
                    return True
            asked = now()
        return False

    async def _read_ahead(self) -> bool:
        """Write together what is ready, until that takes too long; False at the end."""
        now, token, encode, ready = self._loop.now, self._token, self._writer.encode, self._ready
        since = self._asked = now()
        self._set_ahead(True)
        async for chunk in self:
            if token.cancelled:
                return False
            came, asked = now(), self._asked
            if not ready:
                since = came
            ready.append(encode(chunk))
            self._count += 1
            if len(ready) >= LIMIT or came - since > PATIENCE:
                await self._flush()
                await self._loop.breathe()
            if came - asked > PATIENCE:
                await self._flush()
                self._set_ahead(False)
                self._trust_after = min(self._trust_after * DOUBT, TRUST_AFTER * DOUBT**2)
                return True
            self._asked = now()
        return False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        steps: Steps = self._chunks.__anext__().__await__()
        try:
            signal = next(steps)
        except StopIteration as done:
            return done.value
        if self._ready and (answer := await self._flush_before(steps)):
            return answer.pop()
        chunk = await resume(steps, signal)
        self._asked = self._loop.now()
        return chunk

    async def _flush_before(self, steps: Steps) -> list[Any]:
        """Write what is there while the generator waits.

        A cancel that strikes meanwhile is the generator's, for a timeout of its own may be behind
        it. Return its answer, if it has one.
        """
        try:
            await self._flush()
        except anyio.get_cancelled_exc_class() as error:  # noqa: ASYNC103 - it is raised in there
            return [await _throw(steps, error)]  # noqa: ASYNC102, ASYNC104
        except Exception:
            with contextlib.suppress(StopAsyncIteration, anyio.get_cancelled_exc_class()):
                await _throw(steps, anyio.get_cancelled_exc_class()())  # noqa: ASYNC120
            raise
        return []

    async def _flush(self) -> None:
        data = b"".join(self._ready)
        self._ready.clear()
        if not data:
            return
        if self._counts is None:
            await self._writer.write(data)
            return
        self._counts.offer()
        await self._writer.write(data)
        self._counts.taken()

    def _set_ahead(self, ahead: bool) -> None:
        if self._counts is not None:
            self._counts.ahead = ahead


async def _throw(steps: Steps, error: BaseException) -> Any:
    """Raise ``error`` where the generator waits; return the chunk that it answers with."""
    try:
        signal = steps.throw(error)
    except StopIteration as done:
        return done.value
    return await resume(steps, signal)

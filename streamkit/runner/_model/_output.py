"""What a model yields, counted as it goes by: chunks made, handed over, and dropped."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Self

from streamkit._core import CancelSource, CancelToken, Event, Phase, Reason
from streamkit.errors import StreamCancelled
from streamkit.runner._book import Book
from streamkit.streams import Countable, ThreadedGenerator

from ._gap import Gap

logger = logging.getLogger("streamkit.runner")

_SENDING: Final = Phase.SENDING


class Tally:
    """How much a model made for one request: one value, or the chunks of its stream.

    Attributes:
        made: Chunks that came out of the model.
        handed_over: Of those, given to whoever sends them.
        limit: None: a model says of no request how much it may make.
        prompt_tokens: 0: nobody counts them.
    """

    __slots__ = ("handed_over", "limit", "made", "prompt_tokens")

    def __init__(self) -> None:
        self.made: int = 0
        self.handed_over: int = 0
        self.limit: int | None = None
        self.prompt_tokens: int = 0

    @property
    def usage(self) -> Self:
        """As an engine would say it."""
        return self

    @property
    def produced(self) -> int:
        """As an engine would say it."""
        return self.made


class Output(Countable):
    """The chunks of one stream, and the book-keeping of handing them over.

    An iterator and no generator function: one frame less for each chunk. What is made while the
    request is cancelled already, and its model is given time to see that, is dropped.

    Args:
        items: What the model yields.
        source: The request's, for the phase that a cancel is recorded with.
        stage: Cancelled with the request, or when the time of a model that asks is over.
        book: The request's.
        tally: Counts.
        gap: Watches the silence between two chunks.
        on_end: Called when nothing of it runs any more, once or more often.

    It is :class:`Countable`: our responses ask it for what is ready before they write.

    Attributes:
        ahead: Whether its reader asks ahead.
        why_partial: Why what was read of it is not all of it; None once its end was read.
    """

    __slots__ = (
        "_asked",
        "_book",
        "_gap",
        "_handing_over",
        "_items",
        "_next",
        "_on_end",
        "_phase",
        "_source",
        "_stage",
        "_tally",
        "_token",
        "why_partial",
    )

    def __init__(  # noqa: PLR0913 - what one chunk concerns
        self,
        items: AsyncIterator[Any] | ThreadedGenerator[Any],
        *,
        source: CancelSource,
        stage: CancelToken,
        book: Book,
        tally: Tally,
        gap: Gap,
        on_end: Callable[[], object],
    ) -> None:
        self._items: AsyncIterator[Any] | ThreadedGenerator[Any] | None = items
        self._next: Callable[[], Awaitable[Any]] = items.__anext__
        self._source = source
        self._token: CancelToken = source.token
        self._stage = stage
        self._book = book
        self._tally = tally
        self._gap = gap
        self._on_end = on_end
        self._handing_over = False
        self._asked = False  # for the next chunk, while others are being written
        self._phase = source.phase
        self.ahead: bool = False
        self.why_partial: str | None = "the answer ended before its output did"

    @property
    def may_ask_ahead(self) -> bool:
        """What a model has written itself; another's iterator may count what it gives."""
        return inspect.isasyncgen(self._items) or isinstance(self._items, ThreadedGenerator)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._handing_over:
            self.taken()
        gap = self._gap
        try:
            while True:
                gap.begin()
                try:
                    item = await self._next()
                finally:
                    gap.end()
                self._tally.made += 1
                if not self._token.cancelled:
                    break
                self._stage.raise_if_cancelled()  # it had its time, and yields on
        except Exception as error:
            self._end()
            self.why_partial = _why_partial(error)
            if self._token.cancelled and not isinstance(
                error, StopAsyncIteration | StreamCancelled
            ):
                logger.warning("the model failed after it was told to stop", exc_info=error)
            self._token.raise_if_cancelled()
            raise
        return self._hand_over(item)

    def offer(self) -> None:
        """All that was handed over is about to be written."""
        self._handing_over = True
        self._asked = self._gap.pause()
        self._source.phase = _SENDING
        self._book.offer(self._tally.handed_over - self._book.delivered)

    def taken(self) -> None:
        """It was written."""
        self._handing_over = False
        if self._token.cancelled:
            return
        self._source.phase = self._phase
        self._book.taken()
        if self._asked:
            self._gap.begin()

    async def aclose(self) -> None:
        """Close what is iterated."""
        self._gap.close()
        try:
            if isinstance(self._items, ThreadedGenerator):
                # Not awaited: its thread may be stuck, and the answer need not wait for it.
                self._items.source.cancel(Reason.REQUESTED, "closed by its reader")
            elif (aclose := getattr(self._items, "aclose", None)) is not None:
                await aclose()
        finally:
            # Some engines' iterators have no aclose(): what they hold ends when they are dropped.
            self._items, self._next = None, _over
            self._end()

    def _hand_over(self, item: Any) -> Any:
        if not self._tally.handed_over:
            self._book.stage(Event.TOKEN)
            self._phase = self._book.phase
        self._tally.handed_over += 1
        if not self.ahead:
            self.offer()
        return item

    def _end(self) -> None:
        self._gap.close()
        self._on_end()

    def __repr__(self) -> str:
        return f"<Output of {self._items!r}, {self._tally.handed_over} handed over>"


async def _over() -> Any:
    """What is left of an iterator that was closed."""
    raise StopAsyncIteration


def _why_partial(error: Exception) -> str | None:
    # Its name alone: what it says may be nobody else's business, and stands in the log.
    return None if isinstance(error, StopAsyncIteration) else type(error).__name__

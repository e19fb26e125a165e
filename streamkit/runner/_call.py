"""One request to an engine, from its arrival to the proof that the engine has let go of it."""

from __future__ import annotations

import math
from typing import Any, Final, Protocol, Self

from streamkit._core import LIVE, Cancellation, CancelSource, CancelToken, Phase, Reason, hold
from streamkit.engines import Chunk, Engine, GenerationRequest, Outcome, StopReport
from streamkit.engines._stop import merged
from streamkit.errors import StreamCancelled, UsageBug
from streamkit.streams import CancellableStream

from ._book import Book
from ._case import Case, Host, OnClosed
from ._work import Work


class EngineHost(Host, Protocol):
    """What a call needs of the runner that it belongs to."""

    engine: Engine


class Call(Case):
    """One request to an engine; see :class:`Case`.

    ``admit()`` starts it, ``stream()`` or ``read()`` gives the output, ``complete()`` says that the
    answer went out whole.

    Attributes:
        output: The chunks, once it was admitted.
    """

    __slots__ = ("_engine", "_work", "output")

    def __init__(
        self, host: EngineHost, request_id: str, token: CancelToken, on_closed: OnClosed | None
    ) -> None:
        self._work: Work | None = None
        self._engine = host.engine
        self.output: Output | None = None
        super().__init__(host, request_id, token, on_closed)

    def admit(self, *requests: GenerationRequest) -> None:
        """Take a place and open the generation; the engine gets it when its output is first read.

        Of several requests (the prompts of one), each is a generation of its own; they run side by
        side, and their choices are numbered through. All must have the same ``n``.

        Raises:
            RequestRefused: There is no room, or the engine is not ready.
            StreamCancelled: It has been cancelled.
            ValueError: The engine could never serve such a request.
        """
        self.token.raise_if_cancelled()
        self._host.admission.check()
        work = Work(
            self._engine,
            requests,
            request_id=self.id,
            token=self.token,
            on_phase=self._engine_says,
        )
        self._admit()
        self._work = work
        self._books.opened(work.generation)
        self.output = Output(self._books, self.source, work)

    def stream(self) -> CancellableStream[str]:
        """The text as it comes; a chunk counts as delivered when the next one is asked for."""
        return CancellableStream(self._admitted, self.token.child())

    def chunks(self) -> CancellableStream[Chunk]:
        """As :meth:`stream`, with all that the engine says of a piece."""
        self._admitted.whole_chunks = True
        return CancellableStream(self._admitted, self.token.child())

    async def read(self) -> list[Chunk]:
        """The whole of each choice, as one chunk.

        Raises:
            StreamCancelled: It was cut short.
            EngineFailed: The engine broke.

        Cancellation:
            Leaves the generation to the end of the block, which aborts it.
        """
        choices = await self._admitted.read()
        self._books.answer()
        self.source.phase = Phase.SENDING
        return choices

    async def complete(self) -> None:
        """The answer was handed to the server, to its last piece.

        No effect if it was cancelled before. An answer that ended before its output did was no
        whole one (a stream that broke ends with an error, and in good order): it is cut short with
        reason ``error``, and one whose engine broke has failed.

        An answer that was whole before the engine ended (at a stop string) has finished; its books
        are closed when the engine is proved to have stopped, as held work.

        Raises:
            UsageBug: It was not admitted.
        """
        if self.token.cancelled or not self._is_open:
            return
        work = self._admitted_work
        if work.generation.phase in LIVE:
            self.source.cancel(Reason.ERROR, "the answer ended before its output did")
            return
        self.source.finish()
        if work.cut:
            hold(self._finish_cut, name=f"proof of stop for {self.id}", limit=math.inf)
            return
        report = await work.generation.wait_stopped(0)
        if report.outcome is Outcome.FAILED:
            self._books.fail(Reason.ENGINE_FAILED, type(report.error).__name__, report)
        else:
            self._books.finish(report, dropped=work.dropped)
        self._close(self._host.ledger.close(self._books))

    @property
    def _admitted(self) -> Output:
        if self.output is None:
            raise UsageBug(f"request {self.id} was not admitted: call admit() first")
        return self.output

    @property
    def _admitted_work(self) -> Work:
        if self._work is None:
            raise UsageBug(f"request {self.id} was not admitted: call admit() first")
        return self._work

    # -- what happens to it --------------------------------------------------------------------

    def _engine_says(self, phase: Phase) -> None:
        book = self._books
        if self._is_open and book.unproved and phase is Phase.CANCELLED:
            hold(self._prove_late, name=f"late proof of stop of {self.id}", limit=math.inf)
        if self.token.cancelled or not self._is_open:
            return
        book.engine_says(phase)
        if phase in LIVE:
            self.source.phase = phase

    def _cancelled(self, cancellation: Cancellation) -> None:
        if self._work is not None:
            # First of all; its own listener comes after ours.
            self._work.generation.cancel(cancellation)
        self._books.cancel(cancellation)
        # The ladder in it limits itself, each rung and all together.
        hold(self._reap, name=f"reaping {self.id}", limit=math.inf)

    async def _reap(self) -> None:
        """Have the stop proved, and close the books with what the engine said."""
        report: StopReport | None = None
        if self._work is not None:
            await self._work.generation.aclose()
            report = await self._work.prove_stopped()
        book = self._books
        book.settle(report)
        self._close(self._host.ledger.close(book), keep=book.unproved)

    async def _finish_cut(self) -> None:
        """Its answer was whole; close the books with what proves that the engine stopped, too."""
        work, book = self._admitted_work, self._books
        report = await work.prove_stopped()
        book.finish(report, dropped=work.dropped)
        self._close(self._host.ledger.close(book), keep=book.unproved)

    async def _prove_late(self) -> None:
        report = await self._admitted_work.prove_stopped()
        if report.stopped and self._is_open:  # of several, the last one decides
            self._books.settle(report)
            self._amend()

    def _fail(self, reason: Reason, detail: str) -> None:
        generation = self._admitted_work.generation
        if generation.phase in LIVE:
            self.source.cancel(reason, detail)  # it runs for nobody: abort it, and have it proved
            return
        self.source.finish()

        async def settle() -> None:
            await generation.aclose()
            self._books.fail(reason, detail, await generation.wait_stopped(0))
            self._close(self._host.ledger.close(self._books))

        hold(settle, name=f"closing the books of {self.id}")


_SENDING: Final = Phase.SENDING  # looked up twice for each token
_DECODE: Final = Phase.DECODE


class Output:
    """The chunks of one generation, and the book-keeping of handing them over.

    An iterator and no generator function: one frame less for each token.

    Attributes:
        finish_reason: The engine's word for the end of the first choice, or None.
        finish_reasons: The same by choice.
        whole_chunks: Whether it gives chunks and not their texts.
    """

    __slots__ = (
        "_book",
        "_handing_over",
        "_next",
        "_source",
        "_work",
        "finish_reasons",
        "whole_chunks",
    )

    def __init__(self, book: Book, source: CancelSource, work: Work) -> None:
        self._book = book
        self._source = source
        self._work = work
        self._next = work.reader.__anext__
        self._handing_over = False
        self.whole_chunks: bool = False
        self.finish_reasons: dict[int, str] = {}

    @property
    def finish_reason(self) -> str:
        """The engine's word for how the first choice ended."""
        return self.finish_reasons.get(0, "stop")

    @property
    def tokens(self) -> int:
        """Tokens that were given out."""
        return self._work.generation.usage.handed_over - self._work.dropped

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, as the engine counts them."""
        return self._work.generation.usage.prompt_tokens

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        source, book = self._source, self._book
        if self._handing_over:  # and not cancelled: the stream around us asks no more then
            self._handing_over = False
            source.phase = _DECODE
            book.taken()
        try:
            chunk = await self._next()
        except StopAsyncIteration:
            self._raise_if_cut_short()
            raise
        if chunk.finish_reason is not None:
            self.finish_reasons[chunk.index] = chunk.finish_reason
        self._handing_over = True
        source.phase = _SENDING
        book.offer(chunk.tokens)
        return chunk if self.whole_chunks else chunk.text

    async def read(self) -> list[Chunk]:
        """All of it, by choice."""
        chunks: dict[int, list[Chunk]] = {}
        async for chunk in self._work.reader:
            chunks.setdefault(chunk.index, []).append(chunk)
            if chunk.finish_reason is not None:
                self.finish_reasons[chunk.index] = chunk.finish_reason
        self._raise_if_cut_short()
        return [merged(chunks[index]) for index in sorted(chunks)]

    def _raise_if_cut_short(self) -> None:
        """A cancelled generation ends like a whole one; its reader must see the difference."""
        if (cause := self._work.reader.cancellation) is not None:
            raise StreamCancelled(cause) from None

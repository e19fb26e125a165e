"""One request to a model class: its stages, and the slot that they run in."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator
from contextvars import Token
from functools import lru_cache, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from streamkit._core import CancelToken, Event, Reason, token_var
from streamkit.engines import Outcome, Proof, StopReport
from streamkit.errors import UsageBug
from streamkit.runner._case import OnClosed
from streamkit.streams import (
    CancellableStream,
    ThreadedGenerator,
    call_in_thread,
)

from ._dropped import Owner, count_dropped, owner_var
from ._ending import LAST_LINES, PROOF_LIMIT, ModelCase
from ._gap import Gap
from ._handed_on import HandedOn, ReadingOutput, is_handed_on
from ._host import ModelHost
from ._output import Output
from ._own_threads import OwnThreads
from ._result import (
    Answer,
    Result,
    Stream,
    Value,
    as_async_iterator,
    is_awaitable,
    is_plain,
    is_response,
    is_stream,
)
from ._rules import Method
from ._seeing import seeing
from ._tenure import Tenure

if TYPE_CHECKING:
    from ._loading import LoadedModel

_making: Final = threading.Lock()  # two threads of one request may each be its first to start one


class ModelCall(ModelCase):
    """One request to a model class; see :class:`Case`.

    ``admit()`` takes a place, ``predict()`` or ``method()`` runs the model's code, ``complete()``
    says that the answer went out whole.

    All of it runs in the one task that calls these, so that context variables reach from stage to
    stage; sync code runs on threads. A cancel ends the stage that is running, wherever it waits.
    The slot is given back when all that was begun in it has ended, however long after.
    """

    __slots__ = ("_outer", "_outputs")

    def __init__(
        self, host: ModelHost, request_id: str, token: CancelToken, on_closed: OnClosed | None
    ) -> None:
        self._outputs: list[Output] = []
        self._outer: Token[Owner | None] | None = None
        super().__init__(host, request_id, token, on_closed)

    # -- what its server calls -----------------------------------------------------------------

    def admit(self) -> None:
        """Take a place.

        Raises:
            RequestRefused: There is no room, or the model is not ready.
            StreamCancelled: It has been cancelled.
        """
        self.token.raise_if_cancelled()
        self._host.admission.check()
        self._admit()
        self._books.opened(self.tally)

    async def predict(self, inputs: object, request: object) -> Result:
        """Run ``preprocess``, ``predict`` (in a slot) and ``postprocess``.

        Raises:
            StreamCancelled: It was cut short.
            RequestRefused: It waited too long for a slot.
            Exception: What the model raised.
        """
        return await self._run(partial(self._stages, inputs, request))

    async def method(self, name: str, inputs: object, request: object) -> Result:
        """Run one other method; in a slot only where the options say so.

        Raises:
            Exception: As :meth:`predict`.
        """
        return await self._run(
            partial(self._one, self._model.methods.by_name[name], inputs, request)
        )

    def stream(self, items: AsyncIterable[Any] | Iterator[Any]) -> CancellableStream[Any]:
        """Make a counted stream of anything that iterates, cancelled with the request."""
        end = self._begin()
        gap = Gap(self._model_host.gaps, self.source)
        if self._patience.asks:
            items = seeing(self.token, items)
        if not isinstance(items, AsyncIterable):
            items = ThreadedGenerator(
                items,
                self._patience.stage.token.child(),
                on_end=end,
                interrupt=self._model_host.options.interrupt_threads,
            )
            end = _nothing  # the thread may outlive its reader
        handed_on = self._handed_on
        make = Output if handed_on is None else partial(ReadingOutput, handed_on)
        output = make(
            as_async_iterator(items),
            source=self.source,
            stage=self._patience.stage.token,
            book=self._books,
            tally=self.tally,
            gap=gap,
            on_end=end,
        )
        self._outputs.append(output)
        return CancellableStream(output, self._patience.stage.token.child())

    def asked(self) -> bool:
        """The model asks whether anybody listens; True when it should stop.

        Who asks gets time to act on the answer before it is interrupted.
        """
        return self._patience.asked()

    def begin_dropped(self) -> Callable[[], None]:
        """A piece of work begins, in the slot though it was sealed: it was there before."""
        tenure = self._tenure
        return (self._work if tenure is None or tenure.over else tenure.work).begin()

    @property
    def interrupts_threads(self) -> bool:
        """Whether a cancel raises in its threads."""
        return self._model_host.options.interrupt_threads

    def own_threads(self) -> OwnThreads:
        """Those that the model's code starts; any thread."""
        with _making:
            if self._threads is None:
                self._threads = OwnThreads(
                    self.token,
                    self._patience.loop,
                    interrupt=self.interrupts_threads,
                    hold_slot=self._hold_slot,
                )
            return self._threads

    def answering(self) -> None:
        """The answer is complete, and about to be sent as a whole."""
        if not self.token.cancelled:
            self.tally.made = max(1, self.tally.made)  # a response that the model made counts, too
            self._books.stage(Event.TOKEN)
            self.source.phase = self._books.answer()

    def leave_slot(self) -> None:
        """What the model still does, behind its answer, it does outside."""
        self._seal()

    async def complete(self) -> None:
        """The answer was handed to the server, to its last piece.

        No effect if it was cancelled before. An answer that ended before its stream did was no
        whole one, though it may have ended in good order (with an event that says so): it failed.
        """
        if self.token.cancelled or not self._is_open:
            return
        for output in self._outputs:
            if output.why_partial is not None:
                self._fail(Reason.ERROR, output.why_partial)
                return
        self._seal()
        # A thread may still be on its last line, what was left half-read in its `finally`.
        if not await self._work.wait_idle(PROOF_LIMIT + LAST_LINES):
            self._fail(Reason.ERROR, "its work goes on after its answer")
            return
        if self._handed_on is not None:
            await self._handed_on.aclose()
        if self._threads is not None:
            self._threads.let_go()
        if not self.source.finish():  # cancelled meanwhile
            return
        self._patience.end()
        self.tally.handed_over = self.tally.made
        self._books.finish(_finished(self.tally.made))
        self._end()

    def __enter__(self) -> Self:
        count_dropped()
        self._outer = owner_var.set(self)
        return super().__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(exc_type, exc, traceback)
        self._seal()
        if self._outer is not None:
            owner_var.reset(self._outer)
            # It refers to what stood there before, and servers begin a connection's next request
            # in this one's context: each would hold the one before, for as long as that is open.
            self._outer = None

    # -- the stages ----------------------------------------------------------------------------

    @property
    def _model(self) -> LoadedModel:
        loaded = self._model_host.loaded
        if loaded is None or not self.admitted:
            raise UsageBug(f"request {self.id} was not admitted: call admit() first")
        return loaded

    async def _run(self, work: Callable[[], Awaitable[Result]]) -> Result:
        outer = token_var.set(self.token)
        end = self._work.begin()
        try:
            result = await self._patience.run(work, f"request {self.id}")
            # What came back in spite of the cancel may be half an answer.
            self.token.raise_if_cancelled()
            return result
        except BaseException:
            self._seal()
            if self._work.pieces == 1:  # no thread uses it any more
                await self._tidy()  # noqa: ASYNC102, ASYNC120 - shielded, limited
            raise
        finally:
            token_var.reset(outer)
            end()

    async def _stages(self, inputs: object, request: object) -> Result:
        methods = self._model.methods
        predict, postprocess = methods.predict, methods.postprocess
        if predict is None:
            raise UsageBug(f"{self._model.name} has no `predict`")
        if methods.preprocess is not None:
            self._enter(Event.PREPARE)
            inputs = await self._call(methods.preprocess, inputs, request)
            if is_handed_on(inputs):
                self._handed_on = HandedOn(inputs, self._work)
        await self._take_slot()
        result = await self._answer_of(predict, inputs, request)
        if postprocess is None:
            return result
        if not isinstance(result, Value):
            what = "a stream" if isinstance(result, Stream) else "a response"
            raise UsageBug(
                f"`predict` gave {what}, which `postprocess` cannot take: "
                "do its work in `predict`, or remove it"
            )
        self._enter(Event.POSTPROCESS)
        return self._sorted(await self._call(postprocess, result.value, request))

    async def _one(self, method: Method, inputs: object, request: object) -> Result:
        if self._model_host.options.slots_cover == "all":
            await self._take_slot()
        result = await self._answer_of(method, inputs, request)
        if method.name == "websocket":
            self.tally.made = 0  # it has sent its own messages, and nobody counted them
        return result

    async def _answer_of(self, method: Method, inputs: object, request: object) -> Result:
        self._enter(Event.START)
        result = self._sorted(await self._call(method, inputs, request))
        if isinstance(result, Value):
            self._enter(Event.TOKEN)
        if not isinstance(result, Answer):  # its body is yet to come, and runs in the slot
            self._seal()
        return result

    async def _call(self, method: Method, inputs: object, request: object) -> object:
        """Call one method as its kind wants it; await what it returns if that is what it wants."""
        args, kwargs = method.bind(inputs, request)
        self._patience.asks = method.asks
        self._model_host.books.calls += 1
        if method.on_loop:
            result = method.call(*args, **kwargs)
        else:
            result = await call_in_thread(
                method.call,
                args,
                kwargs,
                token=self.token,
                interrupt=self._model_host.options.interrupt_threads,
                on_end=self._begin(),
            )
        if not is_plain(result) and is_awaitable(result) and not is_stream(result):
            result = await result  # the stage lasts as long, and is counted as a whole
        return result

    def _sorted(self, result: object) -> Result:
        if not is_plain(result):
            if is_response(result):
                return Answer(result)
            if is_stream(result):
                return Stream(self.stream(result))
        self.tally.made = 1
        return Value(result)

    def _enter(self, event: Event) -> None:
        if not self.token.cancelled:
            self.source.phase = self._books.stage(event)

    # -- the slot ------------------------------------------------------------------------------

    async def _take_slot(self) -> None:
        self._enter(Event.ENQUEUE)
        slots = self._model_host.slots
        await slots.take(self.token, self._model_host.options.max_wait)
        self._tenure = Tenure(slots, self._work)

    def _hold_slot(self) -> Callable[[], None] | None:
        return None if self._tenure is None else self._tenure.hold()

    def _seal(self) -> None:
        """Nothing more begins in the slot."""
        if self._tenure is not None:
            self._tenure.seal()

    def _begin(self) -> Callable[[], None]:
        """A piece of work begins, in the slot if there is one."""
        tenure = self._tenure
        return (tenure.work if tenure is not None and tenure.open else self._work).begin()


@lru_cache
def _finished(tokens: int) -> StopReport:
    return StopReport(outcome=Outcome.FINISHED, proof=Proof.JOINED, tokens_made=tokens)


def _nothing() -> None:
    """For a stream whose thread says itself when it has ended."""

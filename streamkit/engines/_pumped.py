"""One task for each generation, which owns the engine's iterator; and how that comes to its end."""

from __future__ import annotations

import inspect
import logging
import uuid
from collections.abc import AsyncGenerator, Awaitable, Generator
from contextlib import aclosing, contextmanager
from typing import Final, Protocol

import anyio

from streamkit._core import HOLD_LIMIT, Interrupted, Interrupter, Phase, current_loop, hold
from streamkit.errors import EngineFailed

from ._base import Capabilities, Chunk, Proof
from ._bounded import BoundedOutbox
from ._job import Abort, Job
from ._ladder import LadderLimits
from ._opening import Opening
from ._run import EngineRun, Owner
from ._state import RunState

logger = logging.getLogger("streamkit.engines")

CLOSE_LIMIT: Final = 1.0  # seconds; an iterator that does not close must not keep the abort back
LOOK_EVERY: Final = 0.01  # seconds; above a look into a book, and below most steps
LOOK_AT_MOST: Final = 0.25  # seconds; a slow engine's books are looked at ever more rarely


class Driven(Protocol):
    """What a run needs of the adapter that it belongs to."""

    limits: LadderLimits
    closing_proves: Proof
    default_max_tokens: int | None

    @property
    def name(self) -> str: ...
    @property
    def capabilities(self) -> Capabilities: ...
    @property
    def failure(self) -> BaseException | None: ...
    def check_alive(self) -> None: ...
    def stream(self, job: Job) -> AsyncGenerator[Chunk]: ...
    async def fence(self) -> None: ...
    async def is_gone(self, job_id: str) -> bool: ...
    async def kill(self, job_id: str) -> bool: ...


class PumpedRun(EngineRun):
    """A generation whose engine is an async iterator, read by a task of the run's own.

    Only that task reads and closes the iterator, so that the two never meet: closing a generator
    that another task is reading is an error, and the engine goes on.
    """

    __slots__ = (
        "_abort_call",
        "_drain",
        "_engine",
        "_interrupter",
        "_pump_ended",
        "_unread",
        "engine_id",
        "made",
        "max_tokens",
        "request",
    )

    def __init__(self, opening: Opening, owner: Owner, engine: Driven) -> None:
        super().__init__(opening, owner)
        self.engine_id = uuid.uuid4().hex
        self.request = opening.request
        self.max_tokens = opening.request.max_tokens or engine.default_max_tokens
        if self.max_tokens is not None:
            self.limit = self.max_tokens * opening.request.n
        self.made: int | None = None
        self._engine = engine
        self._abort_call: Abort | None = None
        self._drain = 0.0
        self._interrupter: Interrupter | None = None  # set when the pump begins
        self._pump_ended: anyio.Event | None = None
        self._unread = BoundedOutbox() if engine.capabilities.backpressure else None
        if self._unread is not None:
            self._outbox = self._unread

    # -- what the adapter's job says -----------------------------------------------------------

    def know_abort(self, abort: Abort | None, drain: float) -> None:
        """How the engine is told; see ``Job.registered()``."""
        self._abort_call = abort
        self._drain = drain if abort is not None else 0.0

    def count_prompt(self, tokens: int) -> None:
        """The engine said how long the prompt is."""
        self._prompt_tokens = tokens

    def registered(self, prompt_tokens: int = 0) -> None:
        """The engine knows the request; what was counted of its prompt stays."""
        super().registered(prompt_tokens or self._prompt_tokens)

    def engine_died(self, error: BaseException) -> None:
        """Nothing will come any more: its reader is told, its iterator closed."""
        self.failed(error)
        if self._interrupter is not None:
            self._interrupter.interrupt()

    # -- what a run has to say of its engine ---------------------------------------------------

    def _submit(self) -> None:
        self._engine.check_alive()
        self._pump_ended = anyio.Event()
        current_loop().spawn(self._pump, f"streamkit {self._engine.name} {self.request_id}")

    def _tokens_made(self) -> int | None:
        return self.made

    def _abort(self) -> None:
        # One that reads on for an answer is told in this very turn. One that is closed first is
        # told by that, and its task must run for it.
        answer = self._call_abort() if self._drain else None
        total = self._engine.limits.total
        hold(
            lambda: self._stop(answer),
            name=f"the abort of {self.request_id}",
            limit=CLOSE_LIMIT + self._drain + 2 * total + HOLD_LIMIT,
        )

    async def kill(self) -> bool:
        """End it by force, where the engine can."""
        return await self._engine.kill(self.engine_id)

    # -- the pump ------------------------------------------------------------------------------

    async def _pump(self) -> None:
        self._interrupter = current_loop().interrupter()
        try:
            if self._cancellation is not None:  # nothing has begun, and nothing will
                self.proved(Proof.JOINED)
                return
            # One step for the whole of it: an interrupt costs nothing until it comes, and strikes
            # one await. A scope would strike those of the engine's own cleanup as well.
            await self._interrupter.step(self._read())
            self.answered()
        except Interrupted:
            pass
        except anyio.get_cancelled_exc_class():  # noqa: ASYNC103 - the task ends with it
            self._ended_as_cancelled()
        except Exception as error:  # noqa: BLE001 - whatever the engine raises, the reader gets
            self._ended_with(error)
        finally:
            if self._pump_ended is not None:
                self._pump_ended.set()
            self.proved(self._engine.closing_proves)

    async def _read(self) -> None:
        unfinished = self.request.n
        async with aclosing(self._engine.stream(Job(self))) as stream:
            async for chunk in stream:
                if self._phase is not Phase.DECODE:  # the first one
                    self.registered()
                    self.started()
                self.output(
                    chunk.index, chunk.text, chunk.tokens, chunk.finish_reason, chunk.logprobs
                )
                if chunk.finish_reason is not None:
                    unfinished -= 1
                if self._unread is not None and self._unread.full:
                    await self._unread.wait_room()
        if unfinished > 0 and self._cancellation is None:
            raise EngineFailed(
                f"{self._engine.name} ended {self.request_id} without a finish reason for "
                f"{unfinished} of {self.request.n} choices: the answer may not be whole"
            )

    def _ended_as_cancelled(self) -> None:
        """Not by us: a call that was aborted says so like this, and so does a loop that ends."""
        if self._cancellation is None:
            self.failed(EngineFailed("the event loop of the engine was shut down"))
        elif self._drain:
            self.answered()

    def _ended_with(self, error: Exception) -> None:
        if self._cancellation is None or self._engine.failure is not None:
            self.failed(error)
        else:  # what is torn down may complain; it has come to its end all the same
            logger.debug("%s, as it was aborted: %r", self.request_id, error)

    # -- the end of a cancelled one ------------------------------------------------------------

    async def _stop(self, answer: Awaitable[object] | None) -> None:
        if self._drain:
            if self._unread is not None:
                self._unread.make_room()
            await self._guard(answer)
            await self._wait_pump(self._drain)
        await self._close()
        if not self._drain:
            await self._guard(self._call_abort())
        with self._blaming(), anyio.move_on_after(self._engine.limits.total):
            await self._prove()

    async def _close(self) -> None:
        # A pump that has not begun looks for the cancel when it does.
        if self._interrupter is not None:
            self._interrupter.interrupt()
        await self._wait_pump(CLOSE_LIMIT)

    async def _wait_pump(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            if self._pump_ended is not None:
                await self._pump_ended.wait()

    def _call_abort(self) -> Awaitable[object] | None:
        if self._abort_call is None:
            return None
        result: object = None
        with self._blaming():
            result = self._abort_call()
        return result if inspect.isawaitable(result) else None

    async def _guard(self, abort: Awaitable[object] | None) -> None:
        if abort is None:
            return
        with self._blaming(), anyio.move_on_after(self._engine.limits.total):
            await abort

    async def _prove(self) -> None:
        can = self._engine.capabilities
        if can.fence:
            await self._engine.fence()
            self.proved(Proof.FENCED)
        pause = LOOK_EVERY
        while can.observes and self._state is not RunState.ENDED:
            if await self._engine.is_gone(self.engine_id):
                self.proved(Proof.OBSERVED)
                return
            await anyio.sleep(pause)
            pause = min(2 * pause, LOOK_AT_MOST)

    @contextmanager
    def _blaming(self) -> Generator[None]:
        """What an abort raises is kept for the report; it must not end the rest of the way."""
        try:
            yield
        except Exception as error:
            logger.exception("the abort of %s failed", self.request_id)
            self._evidence.abort_error = error

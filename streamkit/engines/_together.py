"""Several generations of one request as one: chunks as they come, choices numbered through."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Final, Protocol, Self

from streamkit._core import LIVE, Cancellation, Phase, hold

from ._base import Chunk, Engine, Generation, Outcome, StopReport, Usage
from ._ladder import prove_stopped
from ._outbox import Outbox

_ENDS: Final = (Outcome.RUNNING, Outcome.FAILED, Outcome.CANCELLED)  # the first speaks for all
_ENDED: Final = (Phase.QUARANTINED, Phase.ABORTING, Phase.FAILED, Phase.CANCELLED)


class Reader(Protocol):
    """What gives the chunks: a generation, or what stands around one."""

    @property
    def cancellation(self) -> Cancellation | None:
        """What cut it short: the end of its chunks is then no whole one."""
        ...

    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Awaitable[Chunk]: ...


class Together:
    """The generations of one request: a :class:`Generation` in all but the proof of its stop.

    They run side by side. A task for each reads it, for as long as it runs; what is not read from
    here is merged, as the engine's own outbox does it.

    Args:
        request_id: The request's id.
        generations: Its generations.
        readers: What gives the chunks of each.
        choices: How many choices each makes: the second one's first has this index.
    """

    __slots__ = ("_cause", "_choices", "_error", "_left", "_outbox", "_parts", "_readers", "id")

    def __init__(
        self,
        request_id: str,
        generations: Sequence[Generation],
        readers: Sequence[Reader],
        choices: int,
    ) -> None:
        self.id = request_id
        self._parts = tuple(generations)
        self._readers = tuple(readers)
        self._choices = choices
        self._outbox = Outbox()
        self._left: int | None = None  # tasks that have not ended; None before the first chunk
        self._cause: Cancellation | None = None
        self._error: Exception | None = None

    @property
    def request_id(self) -> str:
        """The id of the request; each generation has its own."""
        return self.id

    @property
    def phase(self) -> Phase:
        """That of one which can still be cut short, else how the worst of them ended."""
        phases = [part.phase for part in self._parts]
        live = next((phase for phase in phases if phase in LIVE), None)
        return live or next((phase for phase in _ENDED if phase in phases), Phase.FINISHED)

    @property
    def cancellation(self) -> Cancellation | None:
        """What cut one of them short."""
        return self._cause

    @property
    def usage(self) -> Usage:
        """The books of all."""
        each = [part.usage for part in self._parts]
        return Usage(
            prompt_tokens=sum(usage.prompt_tokens for usage in each),
            handed_over=sum(usage.handed_over for usage in each),
            discarded=sum(usage.discarded for usage in each),
        )

    @property
    def limit(self) -> int | None:
        """Tokens that all of them may make."""
        return _sum([part.limit for part in self._parts])

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        if self._left is None:
            self._start()
        while not self._outbox:
            if self._error is not None:
                raise self._error
            if not self._left:
                raise StopAsyncIteration
            await self._outbox.wait()
        return self._outbox.take()

    def cancel(self, cancellation: Cancellation) -> bool:
        """Have the engine told to abort all that run; True when one did."""
        told = [part.cancel(cancellation) for part in self._parts]  # each, whatever one says
        return any(told)

    async def wait_stopped(self, timeout: float | None = None) -> StopReport:
        """What is known of the end of all, after ``timeout`` seconds for each.

        Cancellation:
            Stops waiting; nothing is changed.
        """
        return _together([await part.wait_stopped(timeout) for part in self._parts])

    async def prove_stopped(self, engine: Engine) -> StopReport:
        """The proof that all have stopped; see :func:`prove_stopped`.

        Cancellation:
            Stops waiting. The ladders are held work and go on, side by side.
        """
        return _together([await prove_stopped(part, engine) for part in self._parts])

    async def abort_again(self) -> None:
        """Send each abort once more."""
        for part in self._parts:
            await part.abort_again()

    async def kill(self) -> bool:
        """End all by force, where the engine can."""
        return all([await part.kill() for part in self._parts])

    async def aclose(self) -> None:
        """Cancel what still runs, and release the iterators; does not wait for the proof."""
        for part in self._parts:
            await part.aclose()
        self._outbox.clear()

    def _start(self) -> None:
        self._left = len(self._parts)
        for number, reader in enumerate(self._readers):
            name = f"reading prompt {number} of {self.id}"
            hold(partial(self._read, number, reader), name=name, limit=math.inf)

    async def _read(self, number: int, reader: Reader) -> None:
        first = number * self._choices
        put = self._outbox.put
        try:
            async for chunk in reader:
                index = first + chunk.index
                put(index, chunk.text, chunk.tokens, chunk.finish_reason, chunk.logprobs)
            self._cause = self._cause or reader.cancellation
        except Exception as error:  # noqa: BLE001 - raised to whoever reads
            self._error = self._error or error
        finally:
            assert self._left is not None
            self._left -= 1
            self._outbox.wake()

    def __repr__(self) -> str:
        return f"<Together {self._parts!r}>"


def _together(reports: list[StopReport]) -> StopReport:
    """No stronger than the weakest, no sooner than the last."""
    outcomes = {report.outcome for report in reports}
    cut = [report for report in reports if report.outcome is not Outcome.FINISHED] or reports
    proofs = [report.proof for report in cut]
    return StopReport(
        outcome=next((end for end in _ENDS if end in outcomes), Outcome.FINISHED),
        proof=min((proof for proof in proofs if proof is not None), default=None)
        if None not in proofs
        else None,
        answered=all(report.answered for report in reports),
        told_after=_last([report.told_after for report in cut]),
        stopped_after=_last([report.stopped_after for report in cut]),
        tokens_made=_sum([report.tokens_made for report in reports]),
        tokens_after_cancel=_sum([report.tokens_after_cancel for report in cut]),
        error=next((report.error for report in reports if report.error), None),
        steps=max((report.steps for report in reports), key=len),
        misbehaviour=next((r.misbehaviour for r in reports if r.misbehaviour), None),
    )


def _sum(numbers: list[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def _last(seconds: list[float | None]) -> float | None:
    known = [each for each in seconds if each is not None]
    return max(known) if len(known) == len(seconds) else None

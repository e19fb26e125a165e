"""How a request to a model ends: what still runs is told, waited for, or given up for the while."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from streamkit._core import Cancellation, CancelToken, Reason, current_loop, hold
from streamkit.engines import Misbehaviour, Outcome, Proof, StopReport
from streamkit.runner._case import Case, OnClosed
from streamkit.streams import CLOSE_GRACE

from ._handed_on import HandedOn
from ._host import ModelHost
from ._output import Tally
from ._own_threads import OwnThreads
from ._patience import ASK_GRACE, Patience
from ._tenure import Tenure
from ._work import Work

logger = logging.getLogger("streamkit.runner")

PROOF_LIMIT: Final = CLOSE_GRACE  # seconds; what the model's own cleanup may take
LAST_LINES: Final = 1.0  # seconds; what a thread whose request has failed may take to end
REAP_LIMIT: Final = PROOF_LIMIT + ASK_GRACE + 2 * CLOSE_GRACE  # the net under its own limits


class ModelCase(Case):
    """The end of one request to a model class; what is done before is :class:`ModelCall`.

    Attributes:
        tally: What the model made.
        on_given_up: Called when it was cancelled and its work does not end: whoever waits for an
            answer need not wait for that.
    """

    __slots__ = (
        "_breaking",
        "_handed_on",
        "_made_before",
        "_model_host",
        "_patience",
        "_tenure",
        "_threads",
        "_work",
        "on_given_up",
        "tally",
    )

    def __init__(
        self, host: ModelHost, request_id: str, token: CancelToken, on_closed: OnClosed | None
    ) -> None:
        self._model_host = host
        self.tally: Tally = Tally()
        self.on_given_up: Callable[[], object] | None = None
        self._work = Work()
        self._tenure: Tenure | None = None
        self._made_before = 0  # chunks, when the cancel came
        self._breaking = False  # it has failed, and something of it still runs
        self._patience = Patience()
        self._handed_on: HandedOn | None = None
        self._threads: OwnThreads | None = None
        super().__init__(host, request_id, token, on_closed)

    def _cancelled(self, cancellation: Cancellation) -> None:
        self._made_before = self.tally.made
        self._patience.cancel(cancellation)
        self._books.cancel(cancellation)
        hold(self._reap, name=f"reaping {self.id}", limit=REAP_LIMIT)

    async def _reap(self) -> None:
        """Wait until its work has ended, and close the books with that, or without."""
        stopped = await self._work.wait_idle(PROOF_LIMIT + ASK_GRACE * self._patience.asks)
        if stopped:
            await self._tidy()
            stopped = await self._threads_end(PROOF_LIMIT)
        if not stopped:
            self._quarantine()
        self._books.settle(self._report(stopped=stopped) if self.admitted else None)
        self._end(keep=not stopped)
        if not stopped:
            self._work.when_idle(self._work_ended_late)

    def _quarantine(self) -> None:
        tenure = self._tenure
        in_slot = tenure is not None and not tenure.over
        if tenure is not None and in_slot:
            tenure.quarantine()
        if self._threads is not None:
            self._threads.give_up_later()
        self._model_host.books.misbehaviours[Misbehaviour.IGNORED] += 1
        logger.error(
            "request %s was cancelled, and after %g s its work still goes on; %s",
            self.id,
            PROOF_LIMIT,
            "its slot is quarantined until that ends" if in_slot else "it holds no slot",
        )
        if self.on_given_up is not None:
            self.on_given_up()

    def _work_ended_late(self) -> None:
        if self._threads is None:
            self._ended_late()
        else:
            self._threads.when_stopped(self._ended_late)

    def _ended_late(self) -> None:
        logger.warning("the work of request %s, which was given up, has ended", self.id)
        self._books.settle(self._report(stopped=True))
        self._amend()
        if self._handed_on is not None:
            hold(self._tidy, name=f"tidying {self.id}", limit=CLOSE_GRACE + 1.0)

    def _report(self, *, stopped: bool) -> StopReport:
        cancellation, told_at = self.token.cancellation, self._patience.told_at
        assert cancellation is not None
        now = current_loop().now()
        return StopReport(
            outcome=Outcome.CANCELLED if stopped else Outcome.RUNNING,
            proof=Proof.JOINED if stopped else None,
            answered=stopped,
            told_after=None if told_at is None else told_at - cancellation.at,
            stopped_after=now - cancellation.at if stopped else None,
            tokens_made=self.tally.made,
            tokens_after_cancel=self.tally.made - self._made_before,
            steps=() if stopped else ("report",),
            misbehaviour=None if stopped else Misbehaviour.IGNORED,
        )

    def _fail(self, reason: Reason, detail: str) -> None:
        if self._breaking:
            return
        tidy = self._handed_on is None or self._handed_on.closed
        if tidy and not (self._work.pieces or self._threads):
            self._failed(reason, detail)
            return
        self._breaking = True
        self._patience.give_up(reason, detail)
        hold(partial(self._bury, reason, detail), name=f"burying {self.id}", limit=REAP_LIMIT)

    async def _bury(self, reason: Reason, detail: str) -> None:
        """Let it come to its end; a failure whose work goes on is reaped as a cancel is."""
        ended = await self._work.wait_idle(LAST_LINES)
        if self.token.cancelled:
            return
        if not ended:
            self.source.cancel(reason, detail)
            return
        await self._tidy()
        if not await self._threads_end(LAST_LINES):
            self.source.cancel(reason, detail)
        elif not self.token.cancelled:
            self._failed(reason, detail)

    async def _tidy(self) -> None:
        """Close what `preprocess` handed on, if that is a generator."""
        if self._handed_on is not None:
            await self._handed_on.aclose()

    async def _threads_end(self, limit: float) -> bool:
        """Stop the threads that the model's code has started; False if one goes on."""
        return self._threads is None or await self._threads.stop(limit)

    def _failed(self, reason: Reason, detail: str) -> None:
        self.source.finish()
        self._patience.end()
        self._books.fail(reason, detail, StopReport(outcome=Outcome.FAILED, proof=Proof.JOINED))
        self._end()

    def _end(self, *, keep: bool = False) -> None:
        self._model_host.books.chunks += self.tally.made
        self._close(self._host.ledger.close(self._books), keep=keep)

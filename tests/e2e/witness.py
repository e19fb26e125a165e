"""What happened inside each request, noted where it happened; asked over HTTP when it has ended."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anyio

from streamkit._core import Cancellation, CancelToken, held
from streamkit.engines import (
    FakeEngine,
    Generation,
    GenerationRequest,
    LadderLimits,
    StopReport,
    prove_stopped,
)

LIMIT = 10.0  # seconds that a question may wait for its answer
OURS = ("/streamkit/", "/tests/e2e/", "/starlette/", "/anyio/", "/sse_starlette/", "/fastapi/")

ENGINES = {
    # One slot: a request that is served after a cancel proves that the slot is free.
    "fast": FakeEngine(slots=1, step_ms=5, prefill_tokens_per_step=8, name="fast"),
    "slow": FakeEngine(slots=1, step_ms=200, name="slow"),
    "storm": FakeEngine(slots=80, step_ms=2, prefill_tokens_per_step=256, name="storm"),
}
for _engine in ENGINES.values():
    _engine.limits = LadderLimits(stop_bound=5.0, block_limit=5.0)  # a busy machine is no liar


class Witness:
    """One request, by the id that its client chose."""

    def __init__(self, request_id: str) -> None:
        self.id = request_id
        self.marks: dict[str, float] = {}  # what was reached, and when (time.monotonic)
        self.cancellations: list[Cancellation] = []
        self.begun = self.returned = 0  # calls of the app
        self.opened = self.closed = 0  # generators of the user's
        self.yielded = 0
        self.status: int | None = None
        self.complete = False
        self.error: str | None = None
        self.notes: list[Any] = []
        self.token: CancelToken | None = None
        self.engine: FakeEngine | None = None
        self.generation: Generation | None = None
        self._changed = asyncio.Event()

    def mark(self, what: str) -> None:
        """Something was reached; the first time counts."""
        # One clock for all processes, as the clients' left_at; uvloop's own counts from elsewhere.
        self.marks.setdefault(str(what), time.monotonic())  # noqa: TID251
        self.changed()

    def changed(self) -> None:
        """Have those who wait look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def cancelled(self, cancellation: Cancellation) -> None:
        """The `on_cancel` of everything in this app: right behind the engine's own listener."""
        self.mark("told")
        self.cancellations.append(cancellation)

    def open(self, engine: FakeEngine, request: GenerationRequest) -> Generation:
        """Open the generation; its phases become marks."""
        self.engine = engine
        self.generation = engine.open(request, request_id=self.id, on_phase=self.mark)
        return self.generation

    async def wait_for(self, ready: Callable[[], bool]) -> bool:
        with anyio.move_on_after(LIMIT):
            while not ready():
                await self._changed.wait()
        return ready()

    async def wait_ended(self) -> dict[str, Any]:
        """Everything that is known once the app has returned and the engine has stopped."""
        ended = await self.wait_for(self._is_over)
        stop: StopReport | None = None
        if self.generation is not None and self.engine is not None:
            stop = await self._stop(self.generation, self.engine)
        return {"ended": ended, **self.report(stop)}

    async def _stop(self, generation: Generation, engine: FakeEngine) -> StopReport:
        if generation.cancellation is not None:
            return await prove_stopped(generation, engine)
        return await generation.wait_stopped(LIMIT)

    def _is_over(self) -> bool:
        return self.returned > 0 and self.returned == self.begun and self.opened == self.closed

    def report(self, stop: StopReport | None = None) -> dict[str, Any]:
        record = self.engine.log.request(self.id) if self.engine else None
        usage = self.generation.usage if self.generation else None
        first = self.token.cancellation if self.token else None
        return {
            "id": self.id,
            "begun": self.begun,
            "returned": self.returned,
            "status": self.status,
            "complete": self.complete,
            "error": self.error,
            "notes": self.notes,
            "marks": self.marks,
            "generators_open": self.opened - self.closed,
            "generators": self.opened,
            "yielded": self.yielded,
            "reason": first.reason if first else None,
            "detail": first.detail if first else None,
            "token_finished": self.token.finished if self.token else None,
            "on_cancel": [c.root.reason for c in self.cancellations],
            "phase": getattr(getattr(self.generation, "cancellation", None), "phase", None),
            "engine": asdict(record) if record else None,
            "handed_over": usage.handed_over if usage else 0,
            "discarded": usage.discarded if usage else 0,
            "stop": stop and _stop_as_json(stop),
        }


def _stop_as_json(stop: StopReport) -> dict[str, Any]:
    return {
        "outcome": stop.outcome,
        "proof": stop.proof.word if stop.proof else None,
        "told_after": stop.told_after,
        "stopped_after": stop.stopped_after,
        "tokens_made": stop.tokens_made,
        "tokens_after_cancel": stop.tokens_after_cancel,
        "steps": stop.steps,
        "misbehaviour": stop.misbehaviour,
    }


WITNESSES: dict[str, Witness] = {}


def witness_of(request_id: str) -> Witness:
    """The witness of that request; made by whoever asks first, client or server."""
    return WITNESSES.setdefault(request_id, Witness(request_id))


def books(live: int) -> dict[str, Any]:
    """What is there in this process now; all lists are empty when nothing is left behind."""
    witnesses = WITNESSES.values()
    return {
        "engines": {name: _load(engine) for name, engine in ENGINES.items()},
        "tokens": {name: _tokens(engine) for name, engine in ENGINES.items()},
        "misbehaviours": [str(m) for e in ENGINES.values() for m in e.statistics().misbehaviours],
        "tasks": _tasks(),
        "threads": [t.name for t in threading.enumerate() if _is_busy(t)],
        "held": held(),
        "live": live,
        "in_flight": [w.id for w in witnesses if w.begun != w.returned],
        "generators": [w.id for w in witnesses if w.opened != w.closed],
        "sockets": _sockets(),
    }


def is_idle(account: dict[str, Any]) -> bool:
    left = ("tasks", "threads", "held", "live", "in_flight", "generators")
    return not any(account[name] for name in left) and not any(map(any, _loads(account)))


def _loads(account: dict[str, Any]) -> list[list[int]]:
    return [list(load.values()) for load in account["engines"].values()]


def _load(engine: FakeEngine) -> dict[str, int]:
    books = engine.statistics()
    return {"running": books.running, "queued": books.queued, "quarantined": books.quarantined}


def _tokens(engine: FakeEngine) -> dict[str, int]:
    """The engine's total, and the sum of what it made for each request."""
    each = sum(record.tokens for record in engine.log.requests())
    return {"total": engine.log.tokens, "of_requests": each}


def _tasks() -> list[str]:
    """Tasks that are neither the server's own nor asking."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    found: list[str] = []
    for task in others:
        code = getattr(task.get_coro(), "cr_code", None)
        file = getattr(code, "co_filename", "")
        # sse-starlette keeps one task for each loop, which waits for the server's exit.
        if any(part in file for part in OURS) and "_shutdown_watcher" not in repr(task):
            found.append(f"{task.get_name()}: {getattr(code, 'co_qualname', '?')}")
    return found


def _is_busy(thread: threading.Thread) -> bool:
    # streamkit-idle-N is parked on purpose, for the next sync generator.
    return thread.name.startswith("streamkit-") and "idle" not in thread.name


def _sockets() -> int:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        return 0
    links = [_link(entry) for entry in folder.iterdir()]
    return sum("socket:" in link for link in links)


def _link(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except OSError:  # the listing's own descriptor
        return ""

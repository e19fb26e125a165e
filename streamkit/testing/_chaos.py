"""A scenario again and again, each time interrupted one step later, until nothing interrupts it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import types
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import anyio

from ._clock import VirtualTimeLoop, virtual_loop
from ._waiting import DEPTH, await_stack, describe_tasks

MAX_RUNS: Final = 2_000
RUN_LIMIT: Final = 3_600.0  # seconds, virtual; what only heartbeats keep alive hangs as well

Scenario: TypeAlias = Callable[[], Coroutine[Any, Any, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosReport:
    """What a chaos run covered.

    Attributes:
        runs: How often the scenario ran; the last run was not interrupted.
        places: Where the scenario's task waited when it was interrupted; one for each other run.
    """

    runs: int
    places: tuple[str, ...]


async def every_cancel_point(
    scenario: Scenario,
    *,
    check: Callable[[], object] | None = None,
    how: Literal["scope", "task"] = "scope",
    max_runs: int = MAX_RUNS,
) -> ChaosReport:
    """Run ``scenario()`` cancelled at its 1st, 2nd, 3rd … suspension, until one run survives.

    A suspension is a moment at which the scenario's own task gives way to the loop. Tasks that it
    starts are not counted; they see what such a cancel does to them. Each run has a task of its
    own.

    Args:
        scenario: Builds what it needs and uses it; called anew for each run.
        check: Called after each run, to assert that the books are clean. May be async.
        how: ``"scope"`` cancels an anyio scope around the scenario: every await is cancelled until
            it has ended. ``"task"`` is ``Task.cancel()``, as a server does it: one await is.
        max_runs: When to give up.

    Raises:
        AssertionError: It still was cancelled in run ``max_runs``, or a run did not end.
        Exception: Whatever the scenario or the check raised, with a note that tells the point.

    Cancellation:
        Cancels the run that is going on and waits for it.
    """
    places: list[str] = []
    for point in range(1, max_runs + 1):
        cut = _Cut(scenario(), point)
        with _noted(f"cancelled at suspension {point} ({how})", cut.places):
            task = _start(cut.in_scope() if how == "scope" else cut.in_task())
            await _finish(task, interrupted=cut.places)
            await _run_check(check)
        if not cut.places:
            return ChaosReport(runs=point, places=tuple(places))
        places += cut.places
    raise AssertionError(f"the scenario has more suspensions than max_runs={max_runs:,}")


async def every_moment(
    scenario: Scenario,
    act: Callable[[], object],
    *,
    check: Callable[[], object] | None = None,
    max_runs: int = MAX_RUNS,
) -> ChaosReport:
    """Run ``scenario()`` with ``act()`` called in loop turn 0, 1, 2, … until it ends before that.

    For what comes from outside: a client that leaves, a token that is cancelled. ``act()`` runs
    where the loop would run the news from a socket: behind all that is ready in that turn, in a
    task of its own. In turn 0 the scenario has just come to its first suspension. The moment before
    the clock jumps is a turn, too.

    Args:
        scenario: Builds what it needs and uses it; called anew for each run.
        act: A plain function; an error of it fails the run.
        check: Called after each run, to assert that the books are clean. May be async.
        max_runs: When to give up.

    Raises:
        AssertionError: The scenario still lasted longer in run ``max_runs``, or a run did not end.
        RuntimeError: The loop is no :class:`VirtualTimeLoop`; only its turns can be repeated.
        Exception: Whatever the scenario, ``act`` or the check raised, with a note that tells the
            turn.

    Cancellation:
        Cancels the run that is going on and waits for it.
    """
    loop = virtual_loop()
    places: list[str] = []
    for turn in range(max_runs):
        moment = _Moment(loop, act, _start(scenario()))
        with _noted(f"acted in turn {turn}", moment.places), loop.label(f"acted in turn {turn}"):
            forget = loop.call_between_turns(turn, moment.come)
            await _finish(moment.task, interrupted=moment.places)
            forget()
            moment.raise_error()
            await _run_check(check)
        if not moment.places:
            return ChaosReport(runs=turn + 1, places=tuple(places))
        places += moment.places
    raise AssertionError(f"the scenario lasts more turns than max_runs={max_runs:,}")


class _Cut:
    """Drives a coroutine and cancels it at one of its suspensions."""

    __slots__ = ("_cancel", "_coroutine", "_point", "places")

    def __init__(self, coroutine: Coroutine[Any, Any, object], point: int) -> None:
        self.places: list[str] = []  # where it was cancelled, if it was
        self._coroutine = coroutine
        self._point = point
        self._cancel: Callable[[], object]

    async def in_scope(self) -> None:
        with anyio.CancelScope() as scope:
            self._cancel = scope.cancel
            await self._drive()

    async def in_task(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._cancel = task.cancel
        await self._drive()

    @types.coroutine
    def _drive(self) -> Generator[Any, Any, None]:
        step = functools.partial[Any](self._coroutine.send, None)
        suspensions = 0
        while True:
            try:
                awaited = step()
            except StopIteration:
                return
            suspensions += 1
            if suspensions == self._point:
                self.places.append(_innermost(self._coroutine))
                self._cancel()
            try:
                result = yield awaited
            except BaseException as error:  # noqa: BLE001, ASYNC103 - thrown into it below
                step = functools.partial[Any](self._coroutine.throw, error)
            else:
                step = functools.partial[Any](self._coroutine.send, result)


class _Moment:
    """The one turn in which ``act`` is called, if the scenario is still there."""

    __slots__ = ("_act", "_acting", "_context", "_error", "_loop", "places", "task")

    def __init__(
        self, loop: VirtualTimeLoop, act: Callable[[], object], task: asyncio.Task[object]
    ) -> None:
        self.places: list[str] = []  # where the scenario was, if it was there
        self.task = task
        self._loop = loop
        self._act = act
        self._acting: asyncio.Task[None] | None = None
        self._context = contextvars.copy_context()
        self._error: Exception | None = None

    def come(self) -> None:
        # A task rather than a call, because anyio's functions want one.
        self._acting = self._loop.create_task(self._call(), context=self._context, name="act")

    async def _call(self) -> None:
        if self.task.done():
            return
        self.places.append(_innermost(self.task.get_coro()))
        try:
            self._act()
        except Exception as error:  # noqa: BLE001 - raised when the run has ended
            self._error = error

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error


def _start(run: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
    # Its own task: what the run does to its task must not reach the test. _finish() owns it.
    return asyncio.create_task(run, name="scenario")  # noqa: TID251


async def _finish(task: asyncio.Task[object], *, interrupted: list[str]) -> None:
    try:
        with anyio.move_on_after(RUN_LIMIT):
            await asyncio.wait([task])
        if not task.done():
            waiting = "\n  ".join(describe_tasks(asyncio.all_tasks()))
            raise AssertionError(f"the run was not over after {RUN_LIMIT:,.0f} s:\n  {waiting}")
    finally:
        if not task.done():
            task.cancel()
            with anyio.move_on_after(RUN_LIMIT, shield=True):
                await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    elif not interrupted:
        raise AssertionError("the scenario ended as cancelled, and nobody had interrupted it")


async def _run_check(check: Callable[[], object] | None) -> None:
    result = check() if check is not None else None
    if inspect.isawaitable(result):
        await result


@contextlib.contextmanager
def _noted(what: str, places: list[str]) -> Generator[None]:
    try:
        yield
    except Exception as error:
        where = places[0] if places else "it was over before"
        error.add_note(f"in the run that was {what}: {where}")
        raise


def _innermost(coroutine: object) -> str:
    return " > ".join(await_stack(coroutine)[-DEPTH:]) or "before its first step"

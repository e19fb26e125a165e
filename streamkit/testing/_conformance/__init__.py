"""The conformance kit: whether an engine stops when it is told to, whatever it is doing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final

from ._bench import Bench, EngineFactory, EngineGone, make
from ._checks import check_alive, check_death, check_leaks, check_neighbour
from ._claims import (
    Verdict,
    check_backpressure,
    check_fence,
    check_kill,
    check_observes,
    enter,
    judge_claims,
)
from ._judge import judge
from ._plan import PHASES, WAYS, CheckPlan, Pace
from ._report import EngineReport, Finding, Trial
from ._takes import check_takes
from ._trial import Attempt, makes_sense

__all__ = [
    "PHASES",
    "WAYS",
    "CheckPlan",
    "EngineFactory",
    "EngineReport",
    "Finding",
    "Pace",
    "Trial",
    "check_engine",
]

_EXPERIMENTS: Final[dict[str, Callable[[Bench], Awaitable[Verdict]]]] = {
    "fence": check_fence,
    "observes": check_observes,
    "backpressure": check_backpressure,
    "kill": check_kill,
    "takes": check_takes,
}


async def check_engine(factory: EngineFactory, plan: CheckPlan | None = None) -> EngineReport:
    """Check that an engine keeps every promise about cancels, and every claim it makes.

    Generations are left in every phase, by every way; each time its reader, the proof that the
    engine stopped, what it still made, and a one-token request right afterwards are looked at. Then
    each claim of its capabilities, a neighbour with a similar id, leaks after 200 cancels, and that
    it is still alive. On the virtual clock it takes seconds; in real time as long as the engine.

    Args:
        factory: Makes the engine, sync or async; again after one that died. One slot shows most.
        plan: Prompts and bounds; None is for an engine that makes a token in 1 to 50 ms.

    Returns:
        The report, whatever is in it: ``print(report)``, ``report.raise_if_failed()``.

    Cancellation:
        Closes the engine.
    """
    plan = plan or CheckPlan()
    bench = Bench(factory, plan, await make(factory))
    async with aclosing(bench):
        try:
            await bench.measure()
            await _check(bench)
        except EngineGone:
            gone = f"gave up: no engine that answers could be had, after {plan.restarts} restarts"
            bench.report.find("alive", gone)
    return bench.report


async def _check(bench: Bench) -> None:
    attempts = await _try_all(bench)
    judge_claims(bench, attempts)
    for name, experiment in _EXPERIMENTS.items():
        enter(bench, name, await experiment(bench))
        await bench.settle()
    await check_neighbour(bench)
    await bench.settle()
    if bench.report.broke("stop"):  # each of its cancels would take as long as an answer
        bench.report.unverified["leaks"] = "not searched in an engine that does not stop"
    else:
        await check_leaks(bench)
    await bench.settle()
    await check_alive(bench)
    await check_death(bench)


async def _try_all(bench: Bench) -> list[Attempt]:
    attempts: list[Attempt] = []
    for phase in bench.plan.phases:
        for way in bench.plan.ways:
            if makes_sense(phase, way):
                attempt = Attempt(bench, phase, way)
                await attempt.run()
                judge(attempt)
                attempts.append(attempt)
                await bench.settle()
    return attempts

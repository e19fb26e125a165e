"""What an engine has to show beside its trials: neighbours, leaks, its death, and that it lives."""

from __future__ import annotations

import gc
import inspect
import random
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from streamkit._core import held, now, wait_held
from streamkit.engines import Generation
from streamkit.errors import EngineFailed

from ._bench import SOLO_TOKENS, Bench, cancellation
from ._reading import Reader

CONCURRENT: Final = 4  # cancels at a time in the search for leaks
LEAVE_AT_MOST: Final = 20  # loop turns, or tokens
DESCRIPTORS: Final = Path("/proc/self/fd")


async def check_neighbour(bench: Bench) -> None:
    """Cancelling ``kit-1`` leaves ``kit-10`` alone: some engines match ids by their beginning."""
    victim = Reader(bench.open(request_id="kit-1"))
    neighbour = Reader(bench.open(request_id="kit-10", tokens=SOLO_TOKENS))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(victim.read)
        tasks.start_soon(neighbour.read)
        with anyio.move_on_after(bench.plan.patience) as limit:
            await victim.mark(1).wait()
            if victim.generation is not None:
                victim.generation.cancel(cancellation("its neighbour stays"))
            await neighbour.ended.wait()
        if limit.cancelled_caught:
            tasks.cancel_scope.cancel()
    if neighbour.error is not None or neighbour.tokens != SOLO_TOKENS:
        how = "" if neighbour.error is None else f" and {neighbour.error!r}"
        bench.report.find(
            "neighbour",
            f"when kit-1 was cancelled, kit-10 got {neighbour.tokens} of {SOLO_TOKENS} tokens{how}",
        )


async def check_alive(bench: Bench) -> None:
    """After all that, it says what it said before."""
    reader = Reader(bench.open(tokens=SOLO_TOKENS))
    with anyio.move_on_after(bench.plan.patience):
        await reader.read()
    if reader.error is not None or reader.ended_at is None:
        bench.report.find("alive", f"a request at the end got {reader.error or 'no end'!r}")
    elif bench.pace.text not in {None, reader.text}:
        bench.report.find("alive", "after the cancels it gives another answer to the same prompt")


async def check_death(bench: Bench) -> None:
    """An engine that dies says so to every reader, and refuses the next."""
    if bench.plan.die is None:
        bench.report.unverified["death"] = "CheckPlan.die does not say how to end it"
        return
    readers = [Reader(bench.open()) for _ in range(2)]
    died_at = 0.0
    async with anyio.create_task_group() as tasks:
        for reader in readers:
            tasks.start_soon(reader.read)
        with anyio.move_on_after(bench.plan.patience):
            await readers[0].mark(1).wait()
        dying = bench.plan.die(bench.engine)
        if inspect.isawaitable(dying):
            await dying
        died_at = now()
        with anyio.move_on_after(bench.plan.patience):
            for reader in readers:
                await reader.ended.wait()
        tasks.cancel_scope.cancel()
    for reader in readers:
        _judge_death(bench, reader, died_at)
    late = Reader(bench.open())
    with anyio.move_on_after(bench.plan.patience):
        await late.read()
    _judge_death(bench, late, now())
    if not bench.report.broke("death"):
        bench.report.verified["death"] = "every reader got EngineFailed, and so does the next"


def _judge_death(bench: Bench, reader: Reader, died_at: float) -> None:
    if not isinstance(reader.error, EngineFailed) or reader.ended_at is None:
        got = "no end" if reader.error is None else repr(reader.error)
        bench.report.find("death", f"a reader of the dead engine got {got}")
    elif reader.ended_at - died_at > bench.plan.bound:
        took = reader.ended_at - died_at
        bench.report.find("death", f"a reader was told only {took:.3g} s after it")


# -- leaks -----------------------------------------------------------------------------------------


async def check_leaks(bench: Bench) -> None:
    """Everything that can be counted is as before, after many cancels at random moments."""
    # Seeded: the same plan cancels at the same moments.
    chance = random.Random(bench.plan.seed)  # noqa: S311
    await _cancel_many(bench, 2 * CONCURRENT, chance)  # what is made once, is made now
    before = await _census(bench)
    alive = await _cancel_many(bench, bench.plan.cancels, chance)
    after = await _census(bench)
    bench.report.cancels = bench.plan.cancels
    after["generations"] = sum(1 for reference in alive if reference() is not None)
    tolerance = max(2, bench.plan.cancels // 20)  # a leak is one for each cancel, or for each tenth
    for name, count in after.items():
        if count - before.get(name, 0) > tolerance:
            bench.report.find(
                "leak",
                f"{name}: {before.get(name, 0)} before {bench.plan.cancels} cancels, {count} after",
            )


async def _cancel_many(
    bench: Bench, number: int, chance: random.Random
) -> list[weakref.ref[Generation]]:
    alive: list[weakref.ref[Generation]] = []
    for _ in range(0, number, CONCURRENT):
        async with anyio.create_task_group() as tasks:
            for _ in range(CONCURRENT):
                generation = bench.open()
                alive.append(weakref.ref(generation))
                tasks.start_soon(_cancel_one, bench, generation, chance)
                del generation
        if bench.engine.failure is not None:
            break
    return alive


async def _cancel_one(bench: Bench, generation: Generation, chance: random.Random) -> None:
    moment, way = chance.randrange(LEAVE_AT_MOST), chance.choice(("cancel", "close", "task"))
    turns, tokens = (moment, 0) if chance.random() < 0.5 else (0, moment)
    reader = Reader(generation)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reader.read)
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        with anyio.move_on_after(bench.plan.bound):
            await reader.mark(tokens).wait()
        await _leave(reader, generation, way)
    with anyio.move_on_after(bench.plan.patience):
        await generation.wait_stopped()


async def _leave(reader: Reader, generation: Generation, way: str) -> None:
    if way == "task":
        reader.scope.cancel()
    elif way == "close":
        await generation.aclose()
    else:
        generation.cancel(cancellation("one of many"))


async def _census(bench: Bench) -> dict[str, int]:
    await bench.wait_idle()
    await wait_held(bench.plan.patience)
    gc.collect()
    counts = {
        "tasks": len(anyio.get_running_tasks()),
        "threads": sum(map(_works, threading.enumerate())),
        "held work": len(held()),
    }
    # In a thread, for those whose tests forbid the loop to touch files.
    counts["file descriptors"] = await anyio.to_thread.run_sync(_count_descriptors)
    books: Mapping[str, int] = {}
    if bench.plan.registries is not None:
        books = bench.plan.registries(bench.engine)
    return counts | {f"registry {name}": size for name, size in books.items()}


def _count_descriptors() -> int:
    return len(list(DESCRIPTORS.iterdir())) if DESCRIPTORS.exists() else 0


def _works(thread: threading.Thread) -> bool:
    # Parked for reuse, by us and by anyio: bounded, and ended by themselves.
    return not thread.name.startswith(("streamkit-idle", "AnyIO worker"))

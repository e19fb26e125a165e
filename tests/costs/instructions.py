"""Instructions of the processor and allocations for each unit, ours and another's, under valgrind.

``make instructions``. The other counts stop at C: what json, pydantic or the interpreter itself do
shows only here. Ratios to the same thing by hand are the same on every machine, or nearly.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import anyio.lowlevel
from starlette.types import ASGIApp, Receive, Scope, Send

from streamkit.server.app import create_app
from streamkit.server.settings import Settings
from streamkit.testing import Lifespan

from . import apps, budgets
from .leaving import Told
from .wire import Wire

TOLERANCE: Final = 0.02  # of a ratio; two runs differ by a fifth of a percent (hashes of addresses)
TIMES: Final = (
    3  # each is counted, the median taken: what happens once, say in a thread, hits one of them
)
MARK: Final = "getppid"  # a call of it that nobody else makes: there valgrind writes its counts
ALLOCATORS: Final = frozenset({"_PyObject_Malloc", "_PyObject_Calloc", "_PyObject_Realloc"})
VALGRIND: Final = ("valgrind", "--tool=callgrind", "--quiet", f"--dump-before={MARK}")

Work = Callable[[int], Awaitable[None]]


class Count(NamedTuple):
    """Of one unit."""

    instructions: float
    allocations: float


class FrozenLoop(asyncio.SelectorEventLoop):
    """A loop whose clock can be stopped: on a slow machine the sweeper must not come more often."""

    def __init__(self) -> None:
        super().__init__()
        self._frozen: float | None = None

    def time(self) -> float:
        return super().time() if self._frozen is None else self._frozen

    def freeze(self) -> None:
        self._frozen = super().time()


# -- the work ------------------------------------------------------------------------------------


def tokens(app_over: Callable[[Callable[[], apps.Items]], ASGIApp]) -> Work:
    async def work(count: int) -> None:
        await Wire(app_over(lambda: apps.ready(count))).run()

    return work


def requests(app: ASGIApp, **request: object) -> Work:
    async def work(count: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(count):
            await loop.create_task(Wire(app, **request).run())
            await anyio.lowlevel.checkpoint()

    return work


def leaving(app: ASGIApp) -> Work:
    async def work(count: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(count):
            wire = Wire(app)
            task = loop.create_task(wire.run())
            await wire.wait_chunk(1)
            wire.leave()
            await asyncio.wait([task])
            await anyio.lowlevel.checkpoint()

    return work


def bare_leaving(engine: Told) -> ASGIApp:
    """A stream whose disconnect is listened for by hand."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def listen() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            engine.aborts += 1
            streaming.cancel()

        loop = asyncio.get_running_loop()
        streaming = loop.create_task(stream(scope, receive, send))
        listener = loop.create_task(listen())
        await asyncio.wait([streaming])
        listener.cancel()

    stream = apps.bare_stream(apps.first_then_silence)
    return app


RIVALS: Final = {  # what each is compared with
    "event_stream": "bare_token",
    "byte_stream": "bare_token",
    "middleware": "bare_request",
    "coroutine": "bare_request",
    "predict": "fastapi",
    "cancel": "bare_cancel",
}
UNITS: Final = {"bare_token": 400, "bare_request": 40, "fastapi": 40, "bare_cancel": 40}
NAMES: Final = (*UNITS, *RIVALS)


def works(model: ASGIApp) -> dict[str, Work]:
    """What is counted, in the order of ``NAMES``."""
    body = {"path": "/v1/models/model:predict", "body": b'{"x": [1, 2]}'}
    return {
        "bare_token": tokens(apps.bare_stream),
        "bare_request": requests(apps.bare_answer),
        "fastapi": requests(apps.fastapi_endpoint(body["path"]), **body),
        "bare_cancel": leaving(bare_leaving(Told())),
        "event_stream": tokens(apps.event_stream),
        "byte_stream": tokens(apps.byte_stream),
        "middleware": requests(apps.CancellationMiddleware(apps.bare_answer)),
        "coroutine": requests(apps.coroutine_endpoint(apps.answer_at_once)),
        "predict": requests(model, **body),
        "cancel": leaving(apps.event_stream(apps.first_then_silence, Told())),
    }


async def run_all(mark: Callable[[], object]) -> None:
    """Do each once and twice the units, some times over, with a mark around each."""
    app = create_app(Settings(), target=str(Path(__file__).parent / "echo_model.py"))
    async with Lifespan(app):
        await app.service.wait_ready()  # else what is first is counted together with the loading
        loop = asyncio.get_running_loop()
        assert isinstance(loop, FrozenLoop)
        loop.freeze()
        gc.collect()
        gc.disable()  # a collection hits whoever comes along
        for name, work in works(app).items():
            units = _units(name)
            await work(units)  # fills caches, makes Python specialise
            mark()
            for _ in range(TIMES):
                await work(units)
                mark()
                await work(2 * units)
                mark()


def _units(name: str) -> int:
    return UNITS[RIVALS.get(name, name)]


# -- the counts ----------------------------------------------------------------------------------


def counts_of(dumps: list[str]) -> dict[str, Count]:
    """What one unit of each costs; between two marks lies one dump."""
    counts = iter(map(_count, dumps))
    return {name: _unit_of(name, counts) for name in NAMES}


def _unit_of(name: str, counts: Iterator[Count]) -> Count:
    next(counts)  # until its first mark
    pairs = [(next(counts), next(counts)) for _ in range(TIMES)]
    more = [(b - a for a, b in zip(once, twice, strict=True)) for once, twice in pairs]
    return Count(*(statistics.median(each) / _units(name) for each in zip(*more, strict=True)))


def _count(dump: str) -> Count:
    total = re.search(r"^(?:summary|totals): (\d+)", dump, re.MULTILINE)
    assert total is not None, dump[:400]
    names = dict(re.findall(r"^c?fn=(\(\d+\)) (.+)$", dump, re.MULTILINE))
    called = re.findall(r"^cfn=(\(\d+\)).*\n(?:.*\n)??calls=(\d+)", dump, re.MULTILINE)
    allocations = sum(int(n) for name, n in called if _plain(names[name]) in ALLOCATORS)
    return Count(int(total[1]), allocations)


def _plain(name: str) -> str:
    """Without what the compiler added: a part of a function, a recursion."""
    return re.split(r"[.']", name)[0]


def measure() -> list[str]:
    """What valgrind counted between the marks, in order."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        subprocess.run(
            [*VALGRIND, f"--callgrind-out-file={out}", sys.executable, "-m", __spec__.name, "work"],
            env={**os.environ, "PYTHONHASHSEED": "0"},
            check=True,
        )
        dumps = sorted(Path(folder).glob("out.*"), key=lambda path: int(path.suffix[1:]))
        return [path.read_text() for path in dumps]


def compare(counts: dict[str, Count]) -> list[str]:
    """Print the table; return what does not hold against the budgets."""
    problems: list[str] = []
    for name, rival in RIVALS.items():
        ours, theirs = counts[name], counts[rival]
        ratio = ours.instructions / theirs.instructions
        print(
            f"{name:12} {ours.instructions:10,.0f} instructions, {theirs.instructions:8,.0f} of "
            f"{rival}: {ratio:6.2f} times; {ours.allocations:6.1f} allocations"
        )
        counted = {"ratio": round(ratio, 2), "allocations": round(ours.allocations, 1)}
        try:
            budgets.check(f"instructions.{name}", counted, tolerance=TOLERANCE)
        except AssertionError as error:
            problems.append(str(error))
    return problems


def main() -> int:
    if sys.argv[1:] == ["work"]:
        logging.disable()  # that valgrind keeps the loop busy is no news
        with asyncio.Runner(loop_factory=FrozenLoop) as runner:
            runner.run(run_all(getattr(os, MARK)))
        return 0
    missing = "" if shutil.which(VALGRIND[0]) else "valgrind is not installed"
    if why := missing or budgets.why_not_here():
        print(f"no instructions were counted: {why}")
        return 0
    problems = compare(counts_of(measure()))
    print(*problems, sep="\n", end="\n" if problems else "")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())

"""Model classes that do what none should: ``inputs["do"]`` says what, in a method of each kind."""

import asyncio
import builtins
import contextlib
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio

from streamkit import current_token

LONG = 60.0  # seconds


def raise_it(name: str) -> None:
    raise asyncio.CancelledError if name == "CancelledError" else getattr(builtins, name)("hostile")


@contextlib.contextmanager
def at_the_end(do: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        if do[0] == "raise in finally":
            raise_it(do[1])


async def behave(do: list[Any]) -> None:  # noqa: C901, PLR0912 - a table
    """What a coroutine and an async generator do."""
    match do:
        case ["raise", name]:
            raise_it(name)
        case ["raise in finally", _] | ["yield in finally"] | ["stay"]:
            await anyio.sleep(LONG)
        case ["swallow", times]:
            for _ in range(times):
                with contextlib.suppress(asyncio.CancelledError):
                    await anyio.sleep(LONG)
        case ["block", seconds]:
            time.sleep(seconds)  # noqa: ASYNC251, TID251 - it is the point
        case ["take SIGTERM"]:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        case ["has SIGTERM"]:
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
        case ["spawn"]:
            task = asyncio.get_running_loop().create_task(anyio.sleep(LONG))
            await task
        case ["group"]:
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(anyio.sleep, LONG)


def behave_in_thread(do: list[Any]) -> None:
    """What a function and a generator do."""
    match do:
        case ["raise", name]:
            raise_it(name)
        case ["raise in finally", _] | ["yield in finally"] | ["stay"]:
            current_token().wait_in_thread(LONG)
            current_token().raise_if_cancelled()
        case ["block", seconds]:
            time.sleep(seconds)  # noqa: TID251 - it is the point
        case ["loop"]:
            while True:
                pass


class Coroutines:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()

    async def predict(self, inputs: Any) -> Any:
        with at_the_end(inputs["do"]):
            await behave(inputs["do"])
            return "value"

    async def completions(self, inputs: Any) -> Any:
        async with self.lock:
            await behave(inputs["do"])
            return "value"


class Functions:
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def predict(self, inputs: Any) -> Any:
        with at_the_end(inputs["do"]):
            behave_in_thread(inputs["do"])
            return "value"

    def completions(self, inputs: Any) -> Any:
        with self.lock:
            behave_in_thread(inputs["do"])
            return "value"


class AsyncGenerators:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()

    async def predict(self, inputs: Any) -> AsyncIterator[Any]:
        do = inputs["do"]
        try:
            with at_the_end(do):
                for _ in range(inputs["chunks"]):
                    yield "chunk "
                await behave(do)
                yield {1, 2} if do == ["wrong chunk"] else "chunk "
        finally:
            if do == ["yield in finally"]:
                yield "goodbye"

    async def completions(self, inputs: Any) -> AsyncIterator[Any]:
        async with self.lock:
            async for chunk in self.predict(inputs):
                yield chunk


class Generators:
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def predict(self, inputs: Any) -> Iterator[Any]:
        do = inputs["do"]
        try:
            with at_the_end(do):
                for _ in range(inputs["chunks"]):
                    yield "chunk "
                behave_in_thread(do)
                yield {1, 2} if do == ["wrong chunk"] else "chunk "
        finally:
            if do == ["yield in finally"]:
                yield "goodbye"

    def completions(self, inputs: Any) -> Iterator[Any]:
        with self.lock:
            yield from self.predict(inputs)

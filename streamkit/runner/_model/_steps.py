"""The steps of a load: the user's code, on one thread or on the loop, and what it raises."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar, cast

import anyio

from streamkit._core import CancelToken
from streamkit.errors import ModelLoadFailed, StreamCancelled
from streamkit.streams import OneThread, call_in_thread

from ._failure import load_failed

R = TypeVar("R")

LEAVE_GRACE: Final = 1.0  # seconds that a shutdown waits for a thread whose load was given up


class Steps:
    """Runs one step after the other; each failure becomes a ``ModelLoadFailed`` that names it.

    Args:
        subject: What is loaded.
        token: What sync steps see as ``current_token()``.
        thread: What all sync steps run on: what one of them leaves in its thread (an event loop, a
            default CUDA device) is there for the next.
    """

    def __init__(self, subject: str, token: CancelToken, thread: OneThread) -> None:
        self._subject = subject
        self._token = token
        self._thread = thread

    async def in_thread(self, name: str, call: Callable[[], R]) -> R:
        """Return ``call()``, run on the thread.

        Raises:
            ModelLoadFailed: It raised, also ``SystemExit`` and the like.

        Cancellation:
            Leaves the thread to itself; where it hangs is reported half a second later.
        """
        return await call_in_thread(
            _Step(self._subject, name, call),
            (),
            {},
            token=self._token,
            thread=self._thread,
            close_grace=LEAVE_GRACE,
        )

    async def run(self, name: str, call: Callable[..., object], *args: object) -> None:
        """Call a function of the model's: a coroutine function on the loop, another on the thread.

        Raises:
            ModelLoadFailed: It raised.
        """
        if inspect.iscoroutinefunction(call):
            result: object = call(*args)
        else:
            result = await self.in_thread(name, lambda: call(*args))
        if inspect.isawaitable(result):
            await self._on_loop(name, cast("Awaitable[object]", result))

    async def _on_loop(self, name: str, awaitable: Awaitable[object]) -> None:
        # In a task of its own: a CancelledError of the user's own making would otherwise look like
        # our caller's cancel, and a cancel scope that is left open would be ours to close.
        ended = False
        failure: ModelLoadFailed | None = None

        async def run() -> None:
            nonlocal ended, failure
            try:
                await awaitable
            except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 - told below
                failure = load_failed(self._subject, name, error)
            ended = True

        try:
            async with anyio.create_task_group() as tasks:  # noqa: ASYNC112 - see above
                tasks.start_soon(run)
        except ExceptionGroup as group:  # a task group, entered and left open
            raise load_failed(self._subject, name, group.exceptions[0]) from group.exceptions[0]
        if failure is not None:
            raise failure
        if not ended:
            raise ModelLoadFailed(f"{self._subject}: its {name} was cancelled by code of its own")


class _Step(Generic[R]):
    """A call whose name, in reports of a thread that hangs, is the step's."""

    def __init__(self, subject: str, name: str, call: Callable[[], R]) -> None:
        self._subject = subject
        self._name = name
        self._call = call
        self.__qualname__ = f"the {name} of {subject}"

    def __call__(self) -> R:
        try:
            return self._call()
        except (ModelLoadFailed, StreamCancelled):
            raise
        except BaseException as error:  # sys.exit() as well: not ours to obey
            failure = load_failed(self._subject, self._name, error)
            raise failure from error  # noqa: ASYNC104 - it is in a thread

"""`cancellable`: makes whatever produces output stop when its cancel token says so."""

from __future__ import annotations

import functools
import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterator,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeVar, cast, overload
from weakref import WeakSet

import anyio

from streamkit._core import (
    HOLD_LIMIT,
    Cancellation,
    CancelSource,
    CancelToken,
    DisconnectWatcher,
    Listener,
    Phase,
    Pollable,
    Reason,
    beside,
    current_loop,
    current_token,
    hold,
    token_of,
    token_var,
)
from streamkit.errors import UsageBug

from ._calls import call_here
from ._insist import Step
from ._signature import find_request
from ._stream import CLOSE_GRACE, Abortable, Blame, CancellableStream
from ._threaded import BATCH_LIMIT, REPORT_AFTER, ThreadedGenerator

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

OnCancel = Callable[[Cancellation], Awaitable[object] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    engine: Abortable | None = None
    on_cancel: OnCancel | None = None
    close_grace: float = CLOSE_GRACE
    interrupt: bool = False
    batch_limit: int = BATCH_LIMIT
    report_after: float = REPORT_AFTER

    def attach(self, token: CancelToken) -> list[Listener]:
        """Have the engine told first, then the user."""
        listeners: list[Listener] = []
        if (engine := self.engine) is not None:
            listeners.append(token.add_listener(lambda c: engine.abort_for(token, c)))
        if (on_cancel := self.on_cancel) is not None:
            listeners.append(token.add_listener(lambda c: _call_back(on_cancel, c)))
        return listeners


@overload
def cancellable(
    target: Abortable | None = None,
    /,
    *,
    on_cancel: OnCancel | None = None,
    close_grace: float = CLOSE_GRACE,
    interrupt: bool = False,
    batch_limit: int = BATCH_LIMIT,
    report_after: float = REPORT_AFTER,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
@overload
def cancellable(target: Callable[P, R], /, **options: Any) -> Callable[P, R]: ...
@overload
def cancellable(target: AsyncIterator[T], /, **options: Any) -> CancellableStream[T]: ...
@overload
def cancellable(target: Iterator[T], /, **options: Any) -> ThreadedGenerator[T]: ...
@overload
def cancellable(target: Coroutine[Any, Any, R], /, **options: Any) -> Coroutine[Any, Any, R]: ...
def cancellable(target: Any = None, /, **options: Any) -> Any:
    """Make work stop when its cancel token is cancelled; as a decorator, or called on an object.

    ``@cancellable``, ``@cancellable(engine)`` and ``@cancellable(on_cancel=…)`` decorate async
    generators, coroutines, generators and plain functions, and keep their signature.
    ``cancellable(agen)`` wraps an object at hand: an async iterator, a generator or a coroutine.

    The token is the one of the request among the arguments (found by its annotation), else
    ``current_token()``. Each call gets a child of it, so that a stream can be closed alone. Inside,
    ``current_token()`` is that child.

    * An **async generator** becomes an async iterator that is driven in its reader's task.
    * A **generator** becomes an async iterator, too; it runs on one worker thread of its own.
    * A **coroutine** is cancelled at the await where it waits. Where no middleware watches the
      client, a watcher runs beside it.
    * A **plain function** can only be asked to stop: it reads ``current_token()``. With
      ``interrupt=True`` an exception is raised in its thread between two bytecodes. It hears of the
      client only below the middleware: no watcher can run beside a function.

    Args:
        target: What to wrap, or an engine whose generations are to be aborted and proved stopped.
        **options: ``on_cancel(cancellation)``, sync or async, runs exactly once, only when the work
            was cut short; async, it runs in a task of its own, at most 10 s. ``close_grace``:
            seconds that the cleanup of the work may take (5). For sync work: ``interrupt``,
            ``batch_limit`` (items read ahead), ``report_after`` (seconds that a cancelled step may
            block before that is reported).

    Raises:
        StreamCancelled: From the wrapped work, when it was cut short.
        UsageBug: ``target`` is none of the kinds above.
    """
    if target is None:
        return functools.partial(_decorate, options=_Options(**options))
    if inspect.isroutine(target) or isinstance(target, functools.partial):
        return _decorate(cast("Callable[..., Any]", target), options=_Options(**options))
    if hasattr(target, "abort_for"):  # isinstance() of a protocol costs more than all the rest
        return functools.partial(_decorate, options=_Options(engine=target, **options))
    return _wrap_object(target, _Options(**options))


_stream_makers: WeakSet[Callable[..., object]] = WeakSet()


def makes_stream(function: Callable[..., object]) -> bool:
    """Whether ``cancellable`` made ``function`` of a generator: calling it runs nothing yet."""
    # Not an attribute on the function: functools.wraps would copy it onto whatever is around it.
    return function in _stream_makers


def _decorate(function: Callable[..., Any], *, options: _Options) -> Callable[..., Any]:
    if not callable(function):
        raise UsageBug(f"@cancellable decorates functions, got {type(function).__name__}")
    wrapper = next(wrap for is_kind, wrap in _KINDS if is_kind(function))(function, options)
    return functools.update_wrapper(wrapper, function)


def _wrap_object(target: object, options: _Options) -> object:
    parent = current_token()
    if inspect.iscoroutine(target):
        return _run_object(cast("Coroutine[Any, Any, object]", target), parent, options)
    stream: object = _stream_over(target, None, parent, options)
    if stream is None:
        raise UsageBug(
            "cancellable() takes a function, an async iterator, a generator, a coroutine or an "
            f"engine, got {type(target).__name__}"
        )
    return stream


async def _run_object(
    coroutine: Coroutine[Any, Any, object], parent: CancelToken, options: _Options
) -> object:
    try:
        return await _run(lambda: coroutine, None, parent, options)
    finally:
        coroutine.close()  # where the cancel came before, or it would say that nobody awaited it


# -- the four kinds of function ----------------------------------------------------------------


def _wrap_generator(function: Callable[..., Any], options: _Options) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> object:
        request = find_request(function, args, kwargs)
        return _stream_over(function(*args, **kwargs), request, _parent(request), options)

    _stream_makers.add(wrapper)
    return wrapper


def _wrap_coroutine(function: Callable[..., Any], options: _Options) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> object:
        request = find_request(function, args, kwargs)
        return await _run(lambda: function(*args, **kwargs), request, _parent(request), options)

    return wrapper


def _wrap_function(function: Callable[..., Any], options: _Options) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> object:
        request = find_request(function, args, kwargs)
        parent = _parent(request)
        if parent.cancellable:
            source = parent.child()
            listeners = options.attach(source.token)
            try:
                result = call_here(
                    function, args, kwargs, token=source.token, interrupt=options.interrupt
                )
            finally:
                _release(source, listeners)
        else:  # a script: nobody could cancel it
            result = function(*args, **kwargs)
        return _over_result(result, request, parent, options)

    return wrapper


_KINDS: Final[tuple[tuple[Callable[[Any], bool], Callable[..., Callable[..., Any]]], ...]] = (
    (inspect.isasyncgenfunction, _wrap_generator),
    (inspect.isgeneratorfunction, _wrap_generator),
    (inspect.iscoroutinefunction, _wrap_coroutine),
    (callable, _wrap_function),
)


# -- running one -------------------------------------------------------------------------------


def _stream_over(
    items: object, request: object, parent: CancelToken, options: _Options
) -> CancellableStream[Any] | ThreadedGenerator[Any] | None:
    """Wrap what can be iterated; None for anything else."""
    if not isinstance(items, AsyncIterator | Generator):
        return None
    source = parent.child()
    options.attach(source.token)
    blame = None if request is None or token_of(request) else _blame(request)
    if isinstance(items, AsyncIterator):
        return CancellableStream(
            cast("AsyncIterator[Any]", items), source, blame=blame, close_grace=options.close_grace
        )
    return ThreadedGenerator(
        cast("Iterator[Any]", items),
        source,
        blame=blame,
        batch_limit=options.batch_limit,
        report_after=options.report_after,
        close_grace=options.close_grace,
        interrupt=options.interrupt,
    )


def _over_result(result: object, request: object, parent: CancelToken, options: _Options) -> object:
    """A function may return the stream instead of being one; engines' methods do."""
    if isinstance(result, CancellableStream | ThreadedGenerator):
        return cast("object", result)  # wrapped already
    return _stream_over(result, request, parent, options) or result


async def _run(
    call: Callable[[], Awaitable[Any]], request: object, parent: CancelToken, options: _Options
) -> object:
    source = parent.child()
    source.phase = Phase.PREFILL  # it runs, and has produced nothing yet
    listeners = options.attach(source.token)
    outer = token_var.set(source.token)
    try:
        step = Step(current_loop(), options.close_grace, call)
        if request is None or token_of(request) is not None:
            result = await step.run_under(source.token, call)
        else:
            async with _watched(request, source):
                result = await step.run_under(source.token, call)
        # What came back in spite of the cancel may be half an answer: engines end their iterators
        # quietly when they are cancelled.
        source.token.raise_if_cancelled()
    except anyio.get_cancelled_exc_class() as error:
        source.cancel(Reason.REQUESTED, f"the task running it was cancelled: {error}")
        raise
    finally:
        token_var.reset(outer)
        _release(source, listeners)
    return _over_result(result, request, parent, options)


def _release(source: CancelSource, listeners: list[Listener]) -> None:
    """The call is over: nothing may be aborted on its behalf any more."""
    for listener in listeners:
        listener.remove()
    # What it returned may still hang on its token (a response around a stream): then the token
    # stays linked, and goes with the request's.
    if not source.token.has_listeners:
        source.finish()


@asynccontextmanager
async def _watched(request: object, source: CancelSource) -> AsyncGenerator[None]:
    """Watch the client ourselves, where no middleware of ours does."""
    watcher = DisconnectWatcher(request, source)
    await watcher.prepare()
    async with beside(watcher.run, f"streamkit disconnect watcher ({watcher.mode})"):
        yield


def _parent(request: object) -> CancelToken:
    return token_of(request) or current_token()


def _blame(request: object) -> Blame | None:
    """Without our middleware, a cancel from outside is mostly a framework's: its client left."""
    if not isinstance(request, Pollable):
        return None

    async def blame(source: CancelSource) -> None:
        if await request.is_disconnected():
            source.cancel(Reason.CLIENT_DISCONNECT, "the client left (seen by the framework)")

    return blame


def _call_back(on_cancel: OnCancel, cancellation: Cancellation) -> None:
    answer = on_cancel(cancellation)
    if answer is not None:
        awaitable = answer
        hold(lambda: awaitable, name=f"on_cancel {on_cancel!r}", limit=HOLD_LIMIT)

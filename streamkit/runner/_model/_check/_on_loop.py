"""What in async code holds the event loop, or keeps a cancel from ending it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Final

from streamkit.streams import CLOSE_GRACE

from ._callee import own_nodes
from ._class import ModelClass
from ._names import Names
from ._paths import Running
from ._report import Code, Finding, warning

_HTTP: Final = ("delete", "get", "head", "options", "patch", "post", "put", "request")
_ASYNC_CLIENT: Final = "use an httpx.AsyncClient"
_PROCESS: Final = "use `await asyncio.create_subprocess_exec()`"
_THREAD: Final = "call it in a thread, `await asyncio.to_thread(…)`"
# What blocks whoever calls it → what to do instead.
_BLOCKING: Final[dict[str, str]] = {
    "builtins.input": _THREAD,
    "concurrent.futures.as_completed": _THREAD,
    "concurrent.futures.wait": "use `await asyncio.wait()`",
    "os.popen": _PROCESS,
    "os.system": _PROCESS,
    "socket.create_connection": "use `await asyncio.open_connection()`",
    "time.sleep": "use `await asyncio.sleep()`",
    "torch.cuda.synchronize": _THREAD,
    "urllib.request.urlopen": _ASYNC_CLIENT,
    "urllib.request.urlretrieve": _ASYNC_CLIENT,
    **{f"{module}.{verb}": _ASYNC_CLIENT for module in ("httpx", "requests") for verb in _HTTP},
    **{
        f"subprocess.{name}": _PROCESS
        for name in ("call", "check_call", "check_output", "getoutput", "getstatusoutput", "run")
    },
}
_CANCELS: Final = frozenset(
    {
        "anyio.get_cancelled_exc_class",
        "asyncio.CancelledError",
        "asyncio.exceptions.CancelledError",
        "builtins.BaseException",
    }
)
_CLOSES: Final = frozenset({"builtins.BaseException", "builtins.GeneratorExit"})
_SUSPENDS: Final = (ast.Await, ast.AsyncFor, ast.AsyncWith)
_YIELDS: Final = (ast.Yield, ast.YieldFrom)


def on_loop_hazards(model: ModelClass, method: str, step: Running) -> Iterator[Finding]:
    """Look at one function that runs for a method."""
    for look in (_blocking, _blocking_waits, _endless, _not_awaited) if step.on_loop else ():
        yield from look(model.names, method, step.function)
    yield from _swallowing(model.names, method, step.function)


def _blocks(node: ast.AST, method: str, what: str, advice: str) -> Finding:
    text = (
        f"{what} holds the event loop: no other request moves and no cancel is heard meanwhile; "
        f"{advice}"
    )
    return warning(node, Code.BLOCKS_LOOP, method, text)


def _blocking(names: Names, method: str, function: ast.AST) -> Iterator[Finding]:
    for node in own_nodes(function):
        if isinstance(node, ast.Call) and (advice := _BLOCKING.get(names.path(node.func))):
            path = names.path(node.func).removeprefix("builtins.")
            yield _blocks(node, method, f"{path}()", advice)


def _blocking_waits(names: Names, method: str, function: ast.AST) -> Iterator[Finding]:
    """Objects that are known by how they were made: a streamer, the event of watch_disconnect()."""
    streamers, events = _streamers(names.tree), _disconnect_events(function)
    for node in own_nodes(function):
        match node:
            case ast.For(iter=ast.Name(id=name)) if name in streamers:
                advice = "iterate it in a generator without `async`, which gets a thread"
                yield _blocks(node, method, f"`for … in {name}`, a TextIteratorStreamer,", advice)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="wait")) if (
                name in events
            ):
                advice = "it is for sync code; async code is interrupted without it"
                yield _blocks(node, method, f"{name}.wait()", advice)
            case _:
                pass


def _streamers(tree: ast.Module) -> set[str]:
    return {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        for target in node.targets
        if isinstance(target, ast.Name)
        and ast.unparse(node.value.func).endswith("TextIteratorStreamer")
    }


def _disconnect_events(function: ast.AST) -> set[str]:
    return {
        item.optional_vars.id
        for node in own_nodes(function)
        if isinstance(node, ast.With)
        for item in node.items
        if isinstance(item.optional_vars, ast.Name)
        and "watch_disconnect" in ast.unparse(item.context_expr)
    }


def _endless(_: Names, method: str, function: ast.AST) -> Iterator[Finding]:
    for node in own_nodes(function):
        match node:
            case ast.While(test=ast.Constant(value=always)) if always and not _suspends(node.body):
                text = "`while True` without an await"
                advice = "await something in it, or call it in a thread"
                yield _blocks(node, method, text, advice)
            case _:
                pass


def _not_awaited(_: Names, method: str, function: ast.AST) -> Iterator[Finding]:
    nodes = list(own_nodes(function))
    handed_on = {id(node.value) for node in nodes if isinstance(node, ast.Await)}
    handed_on |= {id(value) for node in nodes if isinstance(node, ast.Call) for value in node.args}
    for node in nodes:
        match node:
            case ast.Call(func=ast.Attribute(attr="is_disconnected")) if id(node) not in handed_on:
                text = (
                    "is_disconnected() is not awaited, so it is always true: "
                    f"write `await {ast.unparse(node)}`"
                )
                yield warning(node, Code.NOT_AWAITED, method, text)
            case _:
                pass


# -- what swallows a cancel ------------------------------------------------------------------------


def _swallowing(names: Names, method: str, function: ast.AST) -> Iterator[Finding]:
    is_async = isinstance(function, ast.AsyncFunctionDef)
    if not is_async and not _is_generator(function):
        return
    caught = _CANCELS if is_async else _CLOSES
    for node in own_nodes(function):
        match node:
            case ast.Try(body=body, handlers=handlers) if _can_be_cut(body, is_async, function):
                handler = _swallower(names, handlers, caught)
                if handler is not None:
                    said = f"except {ast.unparse(handler.type)}" if handler.type else "except:"
                    yield _swallows(handler, method, said, "end the block with `raise`")
            case ast.With(items=items, body=body) if _can_be_cut(body, is_async, function):
                for item in items:
                    if _suppresses(names, item.context_expr, caught):
                        said = ast.unparse(item.context_expr)
                        yield _swallows(node, method, said, "name the errors that it is for")
            case _:
                pass


def _swallows(node: ast.AST, method: str, said: str, advice: str) -> Finding:
    text = (
        f"`{said}` swallows the cancel, and what follows runs on until it is cancelled again, "
        f"{CLOSE_GRACE:.3g} s later: {advice}"
    )
    return warning(node, Code.SWALLOWS_CANCEL, method, text)


def _swallower(
    names: Names, handlers: Sequence[ast.ExceptHandler], caught: frozenset[str]
) -> ast.ExceptHandler | None:
    """The handler that gets the cancel, if it does not raise."""
    for handler in handlers:
        if handler.type is None or _mentions(names, handler.type, caught):
            raises = any(isinstance(node, ast.Raise) for node in own_nodes(handler))
            return None if raises else handler
    return None


def _suppresses(names: Names, manager: ast.expr, caught: frozenset[str]) -> bool:
    match manager:
        case ast.Call(func=func, args=args) if names.path(func) == "contextlib.suppress":
            return any(_mentions(names, each, caught) for each in args)
        case _:
            return False


def _mentions(names: Names, types: ast.expr, caught: frozenset[str]) -> bool:
    members = types.elts if isinstance(types, ast.Tuple) else [types]
    plain = [each.func if isinstance(each, ast.Call) else each for each in members]
    return any(names.path(each) in caught for each in plain)


def _can_be_cut(body: Sequence[ast.stmt], is_async: bool, function: ast.AST) -> bool:
    if not is_async:
        return any(isinstance(node, _YIELDS) for node in _inside(body))
    return _suspends(body) and not _waits_for_what_it_cancelled(body, function)


def _waits_for_what_it_cancelled(body: Sequence[ast.stmt], function: ast.AST) -> bool:
    """The usual `task.cancel()`, and then `await task` in a `try`."""
    match body:
        case [ast.Expr(value=ast.Await(value=ast.Name(id=name)))]:
            return any(
                isinstance(node, ast.Call) and ast.unparse(node.func) == f"{name}.cancel"
                for node in own_nodes(function)
            )
        case _:
            return False


def _suspends(body: Sequence[ast.stmt]) -> bool:
    return any(
        isinstance(node, _SUSPENDS + _YIELDS)
        or (isinstance(node, ast.comprehension) and node.is_async)
        for node in _inside(body)
    )


def _inside(body: Sequence[ast.stmt]) -> Iterator[ast.AST]:
    return own_nodes(ast.Module(list(body), []))


def _is_generator(function: ast.AST) -> bool:
    return any(isinstance(node, _YIELDS) for node in own_nodes(function))

"""What in async code holds the event loop, or keeps a cancel from ending it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Final

from streamkit.streams import CLOSE_GRACE

from ._blocking import Block, blocking, blocking_waits, file_accesses
from ._callee import own_nodes
from ._class import ModelClass
from ._names import Names
from ._paths import Running
from ._report import Code, Finding, note, warning

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
    if step.on_loop:
        function = step.function
        found = [*blocking(model, function), *blocking_waits(model.names, function)]
        yield from (_blocks(each, method) for each in found)
        yield from _endless(method, function)
        yield from _not_awaited(method, function)
        if method != "load":
            yield from _files(model.names, method, function)
    yield from _swallowing(model.names, method, step.function)


def _blocks(block: Block, method: str) -> Finding:
    text = (
        f"{block.what} holds the event loop: no other request moves and no cancel is heard "
        f"meanwhile; {block.advice}"
    )
    return warning(block.node, Code.BLOCKS_LOOP, method, text)


def _files(names: Names, method: str, function: ast.AST) -> Iterator[Finding]:
    for block in file_accesses(names, function):
        text = (
            f"{block.what} holds the event loop for as long as the disk takes; where that may be "
            f"long, {block.advice}"
        )
        yield note(block.node, Code.READS_FILE, method, text)


def _endless(method: str, function: ast.AST) -> Iterator[Finding]:
    for node in own_nodes(function):
        match node:
            case ast.While(test=ast.Constant(value=always)) if always and not _suspends(node.body):
                advice = "await something in it, or call it in a thread"
                yield _blocks(Block(node, "`while True` without an await", advice), method)
            case _:
                pass


def _not_awaited(method: str, function: ast.AST) -> Iterator[Finding]:
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

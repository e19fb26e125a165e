"""What runs on a thread and hears of no cancel: functions that do not ask, threads of their own."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import Final

from streamkit.runner._model._shape import ROUTES, Kind

from ._blocking import blocking
from ._callee import own_nodes
from ._class import Member, ModelClass
from ._generating import generates
from ._names import KNOWN, Names
from ._paths import ASKS, ASKS_CLIENT, line_that_asks, running
from ._report import Code, Finding, note, warning

_THREADS: Final = frozenset(
    {
        "anyio.to_thread.run_sync",
        "asyncio.to_thread",
        "fastapi.concurrency.run_in_threadpool",
        "starlette.concurrency.run_in_threadpool",
        "threading.Thread",
    }
)
_HEARS: Final = (ASKS - ASKS_CLIENT) | {
    "StoppingCriteria",
    "StoppingCriteriaList",
    "stopping_criteria",
}
_QUICK: Final = KNOWN | {"", "builtins", "numpy"}  # "": this file, whose functions are looked at
_PREPARES: Final = (".set_", "processor", "tokenizer")
_SHORT: Final = frozenset({"append", "get", "json", "model_dump", "model_dump_json"})


def thread_hazards(model: ModelClass, member: Member) -> Iterator[Finding]:
    """Look at one method."""
    yield from _threads_of_its_own(model, member)
    callee = member.callee
    if callee is None or callee.kind is not Kind.FUNCTION or callee.interrupt:
        return
    if line_that_asks(model, member, ASKS) is None:
        yield from _deaf(model, member)


def _threads_of_its_own(model: ModelClass, member: Member) -> Iterator[Finding]:
    if line_that_asks(model, member, _HEARS) is not None:
        return
    for step in running(model, member):
        for node in own_nodes(step.function):
            if not isinstance(node, ast.Call) or _is_heard(model, node):
                continue
            if _starts_a_thread(model.names, node.func):
                text = (
                    f"the thread of {ast.unparse(node.func)}() runs to its end whoever leaves, and "
                    "the slot waits for it: look at `current_token().cancelled` in it (for "
                    "transformers, in a StoppingCriteria), or serve with `--interrupt-threads on`"
                )
                yield warning(node, Code.THREAD_RUNS_ON, member.name, text)


def _starts_a_thread(names: Names, function: ast.expr) -> bool:
    called = isinstance(function, ast.Attribute) and function.attr == "run_in_executor"
    return called or names.path(function) in _THREADS


def _is_heard(model: ModelClass, start: ast.Call) -> bool:
    """What runs there ends by itself."""
    given = [*start.args, *(each.value for each in start.keywords)]
    return any(generates(model, each) for each in given)


def _deaf(model: ModelClass, member: Member) -> Iterator[Finding]:
    """One finding: where the method most likely spends its time."""
    code = [
        node for step in running(model, member) if step.at_once for node in own_nodes(step.function)
    ]
    for is_one, finding, text in _LONG:
        node = next((node for node in code if is_one(model, node)), None)
        if node is not None:
            yield warning(node, finding, member.name, text)
            return
    blocks = (
        block
        for step in running(model, member)
        if step.at_once
        for block in blocking(model, step.function)
        if not (isinstance(block.node, ast.Call) and generates(model, block.node.func))
    )
    if (block := next(blocks, None)) is not None:
        yield warning(block.node, Code.DEAF_CALL, member.name, _DEAF_CALL)
        return
    if _generates(model, member):  # that is its work, and ends by itself
        return
    node = next((node for node in code if _is_of_others(model, node)), None)
    if node is not None and member.name in ("predict", *ROUTES):
        yield note(node, Code.DEAF_FUNCTION, member.name, _DEAF_FUNCTION)


def _generates(model: ModelClass, member: Member) -> bool:
    return any(
        isinstance(node, ast.Call) and (generates(model, node.func) or _is_heard(model, node))
        for step in running(model, member)
        for node in own_nodes(step.function)
    )


def _is_work(model: ModelClass, node: ast.AST) -> bool:
    """A call of what the model holds: its engine, its pipeline; not of what prepares for it."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=name)) if (
            name in model.members
        ):
            return False  # its code is looked at itself
        case ast.Call(func=ast.Attribute() as function):
            text = ast.unparse(function)
            prepares = function.attr in _SHORT or any(word in text for word in _PREPARES)
            return text.startswith("self.") and not (prepares or generates(model, function))
        case _:
            return False


def _is_loop_of_work(model: ModelClass, node: ast.AST) -> bool:
    if isinstance(node, ast.While):
        return True
    return isinstance(node, ast.For) and any(
        _is_work(model, each) or (isinstance(each, ast.Call) and _counts(each))
        for each in ast.walk(node)
    )


def _counts(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id in ("iter", "range")


def _is_loop_of_calls(model: ModelClass, node: ast.AST) -> bool:
    """Over something imported or of this file; with methods of local values alone it is short."""
    return isinstance(node, ast.For) and any(
        isinstance(each, ast.Call) and _is_far(model.names, each.func) for each in ast.walk(node)
    )


def _is_far(names: Names, function: ast.expr) -> bool:
    path = names.path(function)
    if isinstance(function, ast.Name):
        return not path.startswith("builtins.")
    return bool(path)


def _is_of_others(model: ModelClass, node: ast.AST) -> bool:
    """A call of what is neither Python's own nor of this file."""
    path = model.names.path(node.func) if isinstance(node, ast.Call) else ""
    return bool(path) and path.partition(".")[0] not in _QUICK


_DEAF_LOOP: Final = (
    "this loop runs to its end whoever leaves: look at `current_token().cancelled` in it, or serve "
    "with `--interrupt-threads on`"
)
_DEAF_CALL: Final = (
    "this call runs to its end whoever leaves, on a thread that nobody can stop: make it ask "
    "`current_token()`, or write an `async def` around an engine that can be aborted"
)
_DEAF_FUNCTION: Final = (
    "how long this call takes, this check cannot tell, and nothing here asks `current_token()`: it "
    "runs to its end whoever leaves"
)
# The likeliest first.
_LONG: Final[tuple[tuple[Callable[[ModelClass, ast.AST], bool], Code, str], ...]] = (
    (_is_loop_of_work, Code.DEAF_LOOP, _DEAF_LOOP),
    (_is_work, Code.DEAF_CALL, _DEAF_CALL),
    (_is_loop_of_calls, Code.DEAF_LOOP, _DEAF_LOOP),
)

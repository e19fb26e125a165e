"""What blocks whoever calls it: known by its name, or by how the object at hand was made."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from ._callee import own_nodes
from ._class import ModelClass
from ._names import Names

_HTTP: Final = frozenset({"delete", "get", "head", "options", "patch", "post", "put", "request"})
_ASYNC_CLIENT: Final = "use an httpx.AsyncClient"
_ASYNCIO: Final = "use the one of asyncio"
_PROCESS: Final = "use `await asyncio.create_subprocess_exec()`"
_THREAD: Final = "call it in a thread, `await asyncio.to_thread(…)`"
_COMPUTES: Final = (
    "it computes until it is through: call it in a method without `async`, which gets a thread, or "
    "`await asyncio.to_thread(…)`"
)
# What blocks whoever calls it → what to do instead.
_CALLS: Final[dict[str, str]] = {
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
_CREATE: Final = frozenset({"chat.completions.create", "completions.create", "embeddings.create"})
_PREPARES: Final = "Config|Criteria|Extractor|Processor|Streamer|Tokenizer"
# How an object was made → what of it blocks ("": calling itself), and what to do instead.
_OBJECTS: Final[tuple[tuple[str, frozenset[str], str], ...]] = (
    (r"requests\.[Ss]ession", _HTTP, _ASYNC_CLIENT),
    (r"httpx\.Client", _HTTP | {"send"}, _ASYNC_CLIENT),
    (r"openai\.OpenAI", _CREATE | {"responses.create"}, "use openai.AsyncOpenAI"),
    (r"subprocess\.Popen", frozenset({"communicate", "wait"}), _PROCESS),
    (r"queue\.\w*Queue", frozenset({"get", "join", "put"}), _ASYNCIO),
    (r"threading\.Thread", frozenset({"join"}), _THREAD),
    (r"threading\.(Lock|RLock|Semaphore|BoundedSemaphore)", frozenset({"acquire"}), _ASYNCIO),
    (r"threading\.(Barrier|Condition|Event)", frozenset({"wait"}), _ASYNCIO),
    (
        rf"transformers\.(?!\w*({_PREPARES}))\w+(\.from_pretrained)?",
        frozenset({"", "generate"}),
        _COMPUTES,
    ),
    (r"diffusers\.\w+(\.from_pretrained)?", frozenset({""}), _COMPUTES),
    (r"sentence_transformers\.\w+", frozenset({"encode", "predict"}), _COMPUTES),
    (r"vllm\.LLM", frozenset({"chat", "classify", "embed", "encode", "generate"}), _COMPUTES),
    (
        r"llama_cpp\.Llama(\.from_pretrained)?",
        frozenset({"", "create_chat_completion", "create_completion", "embed"}),
        _COMPUTES,
    ),
    (r"(faster_)?whisper\.\w+", frozenset({"transcribe"}), _COMPUTES),
)
_AT_ONCE: Final = frozenset({"block", "blocking", "timeout"})
_WITHOUT_GRADIENTS: Final = frozenset({"torch.inference_mode", "torch.no_grad"})
_FILE: Final = frozenset({"read_bytes", "read_text", "write_bytes", "write_text"})


@dataclass(frozen=True, slots=True)
class Block:
    """One place that blocks, and the way out."""

    node: ast.AST
    what: str
    advice: str


def blocking(model: ModelClass, function: ast.AST) -> Iterator[Block]:
    """Every call in a function of the model that blocks it."""
    awaited = {id(node.value) for node in own_nodes(function) if isinstance(node, ast.Await)}
    made = _made(model, function)
    for node in own_nodes(function):
        if not isinstance(node, ast.Call) or id(node) in awaited:
            continue
        path = model.names.path(node.func)
        if advice := _CALLS.get(path):
            yield Block(node, f"{path.removeprefix('builtins.')}()", advice)
        elif advice := _advice(model.names, made, node):
            yield Block(node, f"{_short(node.func)}()", advice)
    yield from _without_gradients(model, function)


def blocking_waits(names: Names, function: ast.AST) -> Iterator[Block]:
    """A streamer, and the event of watch_disconnect(): both are for sync code."""
    streamers, events = _streamers(names.tree), _disconnect_events(function)
    for node in own_nodes(function):
        match node:
            case ast.For(iter=ast.Name(id=name)) if name in streamers:
                advice = "iterate it in a generator without `async`, which gets a thread"
                yield Block(node, f"`for … in {name}`, a TextIteratorStreamer,", advice)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="wait")) if (
                name in events
            ):
                advice = "it is for sync code; async code is interrupted without it"
                yield Block(node, f"{name}.wait()", advice)
            case _:
                pass


def file_accesses(names: Names, function: ast.AST) -> Iterator[Block]:
    """Each file that is opened, read or written by the usual calls."""
    awaited = {id(node.value) for node in own_nodes(function) if isinstance(node, ast.Await)}
    for node in own_nodes(function):
        if not isinstance(node, ast.Call) or id(node) in awaited:
            continue
        by_path = isinstance(node.func, ast.Attribute) and node.func.attr in _FILE
        if by_path or names.path(node.func) == "builtins.open":
            yield Block(node, f"{_short(node.func)}()", _THREAD)


def _short(function: ast.expr) -> str:
    """An expression as it is called, without the arguments on the way there."""
    match function:
        case ast.Attribute(value=value, attr=name):
            return f"{_short(value)}.{name}"
        case ast.Call(func=inner):
            return f"{_short(inner)}()"
        case _:
            return ast.unparse(function)


# -- objects, known by how they were made ----------------------------------------------------------


def _advice(names: Names, made: dict[str, str], call: ast.Call) -> str | None:
    if any(keyword.arg in _AT_ONCE for keyword in call.keywords):
        return None
    if any(isinstance(each, ast.Constant) and each.value is False for each in call.args):
        return None  # `acquire(False)`
    owner, used = call.func, list[str]()
    while True:
        maker = made.get(ast.unparse(owner)) or _maker(names, owner, made)
        for pattern, methods, advice in _OBJECTS:
            if ".".join(reversed(used)) in methods and re.fullmatch(pattern, maker):
                return advice
        if not isinstance(owner, ast.Attribute):
            return None
        used.append(owner.attr)
        owner = owner.value


def _made(model: ModelClass, function: ast.AST) -> dict[str, str]:
    """The names and attributes that hold an object, as text, with the path of what made it."""
    made: dict[str, str] = {}
    methods = [member.callee.node for member in model.members.values() if member.callee]
    for where, only_attributes in ((model.names.tree, False), *((each, True) for each in methods)):
        for target, value in _given(where):
            if not only_attributes or target.startswith("self."):
                made[target] = _maker(model.names, value, made)
    for target, value in _given(function):  # its own names hide others'
        made[target] = _maker(model.names, value, made)
    return made


def _given(function: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    for node in own_nodes(function):
        match node:
            case ast.Assign(targets=targets, value=value):
                yield from ((ast.unparse(target), value) for target in targets)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                yield ast.unparse(target), value
            case ast.withitem(context_expr=value, optional_vars=ast.expr() as target):
                yield ast.unparse(target), value
            case _:
                pass


def _maker(names: Names, value: ast.expr, made: dict[str, str]) -> str:
    """The path of what made a value: `transformers.AutoModel.from_pretrained` of `….to("cuda")`."""
    while isinstance(value, ast.Call):
        path = names.path(value.func)
        if path or not isinstance(value.func, ast.Attribute):
            return path
        value = value.func.value
    return made.get(ast.unparse(value), "") if isinstance(value, ast.Name | ast.Attribute) else ""


def _without_gradients(model: ModelClass, function: ast.AST) -> Iterator[Block]:
    """A tensor computation, whoever made the model: the first call of what `self` holds."""
    for node in own_nodes(function):
        match node:
            case ast.With(items=items, body=body) if any(
                isinstance(each.context_expr, ast.Call)
                and model.names.path(each.context_expr.func) in _WITHOUT_GRADIENTS
                for each in items
            ):
                inside = list(own_nodes(ast.Module(list(body), [])))
                if any(isinstance(each, ast.Await) for each in inside):
                    continue
                calls = (each for each in inside if isinstance(each, ast.Call) and _is_held(each))
                for call in islice(calls, 1):
                    yield Block(call, f"{_short(call.func)}()", _COMPUTES)
            case _:
                pass


def _is_held(call: ast.Call) -> bool:
    text = ast.unparse(call.func)
    return text.startswith("self.") and "tokenizer" not in text and "processor" not in text


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

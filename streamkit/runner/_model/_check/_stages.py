"""What a model says that the rules admit, and that does something else than it seems to."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from streamkit.runner._model._shape import Kind, Shape, Takes, load_problem

from ._callee import Callee, own_nodes
from ._class import ModelClass
from ._paths import running
from ._reach import code_kind, returned_streams
from ._report import Code, Finding, Severity, warning

_GENERATORS: Final = (Kind.GENERATOR, Kind.ASYNC_GENERATOR)
_GIVEN: Final = frozenset({"config", "data_dir", "environment", "lazy_data_resolver", "secrets"})


def stage_findings(
    model: ModelClass, shapes: Mapping[str, Shape], extensions: Collection[str]
) -> Iterator[Finding]:
    """Look at the methods together."""
    yield from _streams_into_postprocess(model)
    yield from _own_responses(model)
    yield from _drops(model, shapes)
    yield from _fails_on_each_call(model, shapes)
    yield from _called_otherwise(model, shapes)
    yield from _constructor(model, frozenset(extensions))


def _note(line: int, code: Code, method: str | None, text: str) -> Finding:
    text = f"{method}: {text}" if method else text
    return Finding(line, Severity.NOTE, code, text, method)


def _streams_into_postprocess(model: ModelClass) -> Iterator[Finding]:
    predict, postprocess = model.members.get("predict"), model.members.get("postprocess")
    if predict is None or postprocess is None:
        return
    why = f"and `postprocess` (line {postprocess.line}) takes no stream: it is answered 500"
    if code_kind(predict) in _GENERATORS and predict.callee is not None:
        yield warning(predict.callee.node, Code.STREAM_AND_POSTPROCESS, "predict", f"yields, {why}")
    for node in returned_streams(model, predict):
        text = f"a request that gets here returns a generator, {why}"
        yield warning(node, Code.STREAM_AND_POSTPROCESS, "predict", text)
    for node in _responses(model):
        text = f"a request that gets here returns a response, {why}"
        yield warning(node, Code.STREAM_AND_POSTPROCESS, "predict", text)


def _own_responses(model: ModelClass) -> Iterator[Finding]:
    for node in _responses(model):
        if ast.unparse(node.func).endswith("StreamingResponse"):
            text = (
                "a StreamingResponse is sent as it is; a client that leaves ends its iterator, and "
                "the slot is held until then"
            )
            yield _note(node.lineno, Code.OWN_RESPONSE, "predict", text)


def _responses(model: ModelClass) -> list[ast.Call]:
    if "predict" not in model.members:
        return []
    return [
        node
        for step in running(model, model.members["predict"])
        for node in own_nodes(step.function)
        if isinstance(node, ast.Call) and _is_response(model.names.path(node.func))
    ]


def _is_response(path: str) -> bool:
    module, _, name = path.rpartition(".")
    return module in ("fastapi", "fastapi.responses", "starlette.responses") and name.endswith(
        "Response"
    )


def _drops(model: ModelClass, shapes: Mapping[str, Shape]) -> Iterator[Finding]:
    for before, name in (("preprocess", "predict"), ("predict", "postprocess")):
        if before in shapes and name in shapes and shapes[name].takes is Takes.NOTHING:
            text = f"it takes nothing, so what `{before}` returns is dropped"
            yield _note(model.members[name].line, Code.DROPS_RESULT, name, text)


def _fails_on_each_call(model: ModelClass, shapes: Mapping[str, Shape]) -> Iterator[Finding]:
    for name, shape in shapes.items():
        if shape.takes is Takes.INPUTS and shape.parameters[0].name.startswith("**"):
            callee = model.members[name].callee
            assert callee is not None
            text = (
                f"`{shape.parameters[0].name}` takes no inputs, which come by position: each call "
                f"fails; write `{name}(self, inputs)`"
            )
            yield warning(callee.node, Code.FAILS_ON_CALL, name, text)


def _called_otherwise(model: ModelClass, shapes: Mapping[str, Shape]) -> Iterator[Finding]:
    """Two methods that belong to no request."""
    load = model.members.get("load")
    if load is not None and (load.oddity or load.callee):
        kind = load.callee.kind if load.callee else Kind.FUNCTION
        text = load_problem(model.node.name, kind, _required(load.callee), load.oddity)
        if text is not None:
            yield Finding(load.line, Severity.ERROR, Code.DEFINITION, text, "load")
    setup = shapes.get("setup_environment")
    if setup is not None and setup.takes not in (None, Takes.INPUTS):
        callee = model.members["setup_environment"].callee
        assert callee is not None
        text = (
            "it is called with the environment alone, so each call fails: write "
            "`setup_environment(self, environment)`"
        )
        yield warning(callee.node, Code.FAILS_ON_CALL, "setup_environment", text)


def _constructor(model: ModelClass, extensions: frozenset[str]) -> Iterator[Finding]:
    constructor = model.members.get("__init__")
    if constructor is None or constructor.callee is None:
        return
    known = ", ".join(sorted(_GIVEN | extensions))
    by_position = {each.arg for each in constructor.callee.arguments.posonlyargs}
    for name in _required(constructor.callee):
        if name in by_position:
            text = f"`{name}` cannot be given by keyword: drop the `/`"
        elif name not in _GIVEN | extensions:
            text = (
                f"nothing gives it `{name}`: give it a default, or read it from one of {known}, or "
                "add an extension of that name"
            )
        else:
            continue
        text = f"{model.node.name}.__init__: {text}"
        yield Finding(constructor.line, Severity.ERROR, Code.CONSTRUCTOR, text)


def _required(callee: Callee | None) -> list[str]:
    """The parameters without a default, but for the model itself."""
    if callee is None:
        return []
    arguments = callee.arguments
    positional = [*arguments.posonlyargs, *arguments.args]
    required = [each.arg for each in positional[: len(positional) - len(arguments.defaults)]]
    by_name = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return required[callee.bound :] + [each.arg for each, default in by_name if default is None]

"""Which of the known methods a model has, what each takes, and how calling it behaves."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

from streamkit.errors import ModelDefinitionError
from streamkit.streams import REQUEST, makes_stream, namespace_of

from ._shape import (
    KNOWN,
    Kind,
    Parameter,
    Shape,
    Takes,
    load_problem,
    no_self,
    not_a_function,
    problems,
)

__all__ = ["KNOWN", "Kind", "Method", "Methods", "Takes", "examine"]

_EMPTY: Final = inspect.Parameter.empty
_BY_NAME: Final = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
_STARS: Final = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
_ASKED: Final = "is_disconnected"


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a model, as the runner calls it.

    Attributes:
        name: One of :data:`KNOWN`.
        call: The bound method.
        takes: What it is to be given.
        kind: How the outermost function behaves; a decorator around a coroutine function that is
            no coroutine function itself is a ``FUNCTION`` (which may return an awaitable).
        annotation: Of the inputs parameter, resolved also where it is a string or postponed, or
            as it is where that fails; ``inspect.Parameter.empty`` if there is none.
        asks: Its code, or that of a helper in the same class or file, names ``is_disconnected``.
        inputs_name: Keyword that the inputs must be given by; None: by position.
        request_name: The same for the request.
    """

    name: str
    call: Callable[..., object]
    takes: Takes
    kind: Kind
    annotation: object = _EMPTY
    asks: bool = False
    inputs_name: str | None = None
    request_name: str | None = None

    @property
    def on_loop(self) -> bool:
        """Whether to call it on the event loop: that only makes an object, or it may await."""
        return self.kind is not Kind.FUNCTION

    def bind(self, inputs: object, request: object) -> tuple[tuple[object, ...], dict[str, object]]:
        """Return the arguments to call it with, by position and by keyword."""
        if self.inputs_name is None and self.request_name is None:
            return _BY_POSITION[self.takes](inputs, request), {}
        positional: list[object] = []
        by_name: dict[str, object] = {}
        for wanted, name, value in (
            (_INPUTS, self.inputs_name, inputs),
            (_REQUEST, self.request_name, request),
        ):
            if self.takes not in wanted:
                continue
            if name is None:
                positional.append(value)
            else:
                by_name[name] = value
        return tuple(positional), by_name


_Arguments: TypeAlias = Callable[[object, object], tuple[object, ...]]
_BY_POSITION: Final[Mapping[Takes, _Arguments]] = {
    Takes.NOTHING: lambda _, __: (),
    Takes.INPUTS: lambda inputs, _: (inputs,),
    Takes.REQUEST: lambda _, request: (request,),
    Takes.BOTH: lambda inputs, request: (inputs, request),
}
_INPUTS: Final = (Takes.INPUTS, Takes.BOTH)
_REQUEST: Final = (Takes.REQUEST, Takes.BOTH)


@dataclass(frozen=True, slots=True)
class Methods:
    """The known methods of one model."""

    by_name: Mapping[str, Method]

    @property
    def preprocess(self) -> Method | None:
        """The stage before the slot."""
        return self.by_name.get("preprocess")

    @property
    def predict(self) -> Method | None:
        """The stage that holds the slot; None for a model with a websocket or routes alone."""
        return self.by_name.get("predict")

    @property
    def postprocess(self) -> Method | None:
        """The stage after the slot."""
        return self.by_name.get("postprocess")

    @property
    def websocket(self) -> Method | None:
        """What owns a websocket from its accept to its close."""
        return self.by_name.get("websocket")

    @property
    def first(self) -> Method | None:
        """The stage that is given the client's inputs."""
        return self.preprocess or self.predict

    @property
    def needs_payload(self) -> bool:
        """Whether the first stage takes inputs; if not, nobody needs the body parsed."""
        return self.first is not None and self.first.takes in _INPUTS


def examine(model: object) -> Methods:
    """Read the methods of a loaded model.

    Raises:
        ModelDefinitionError: It cannot be served; the message has a line for each reason.
    """
    found = {name: _read(model, name) for name in KNOWN if hasattr(model, name)}
    shapes = {name: shape for name, (shape, _) in found.items()}
    wrong = list(problems(type(model).__name__, shapes))
    if wrong:
        raise ModelDefinitionError("\n".join(problem.text for problem in wrong))
    return Methods({name: method for name, (_, method) in found.items() if method})


def why_no_load(model: Any) -> str | None:
    """Why the model's ``load`` cannot be called; None if it can."""
    load, name = model.load, type(model).__name__
    if not callable(load):
        return load_problem(name, Kind.FUNCTION, (), not_a_function(repr(load)))
    required: list[str] = []
    with suppress(TypeError, ValueError):  # written in C, without a signature
        required = [
            each.name
            for each in inspect.signature(load).parameters.values()
            if each.default is _EMPTY and each.kind not in _STARS
        ]
    return load_problem(name, _kind(load), required)


def _read(model: object, name: str) -> tuple[Shape, Method | None]:
    call = getattr(model, name)
    if not callable(call):
        return Shape(name, oddity=not_a_function(repr(call))), None
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):
        oddity = (
            no_self(name)  # of a plain function, that alone cannot be read
            if inspect.ismethod(call) and inspect.isfunction(call.__func__)
            else f"does not say what it takes: write `def {name}(self, inputs)` around {call!r:.80}"
        )
        return Shape(name, oddity=oddity), None
    namespace = namespace_of(call)
    shape = Shape(
        name,
        tuple(_parameter(each, namespace) for each in signature.parameters.values()),
        _kind(call),
    )
    return shape, _method(model, call, shape, list(signature.parameters.values()))


def _parameter(parameter: inspect.Parameter, namespace: Mapping[str, object]) -> Parameter:
    annotation = parameter.annotation
    return Parameter(
        _STARS.get(parameter.kind, "") + parameter.name,
        is_request=REQUEST.judge(annotation, namespace).is_request,
        annotation=_as_written(annotation),
    )


def _as_written(annotation: object) -> str:
    if isinstance(annotation, str):
        return annotation
    return "" if annotation is _EMPTY else inspect.formatannotation(annotation)


def _method(
    model: object,
    call: Callable[..., object],
    shape: Shape,
    parameters: list[inspect.Parameter],
) -> Method | None:
    if shape.takes is None:
        return None
    inputs = parameters[0] if shape.takes in _INPUTS else None
    request = parameters[-1] if shape.takes in _REQUEST else None
    return Method(
        shape.name,
        call,
        shape.takes,
        shape.kind,
        annotation=_resolved(inputs, call) if inputs else _EMPTY,
        asks=_asks(call, model),
        # `**kwargs` alone is called as Truss calls it, which fails: there is no name to give.
        inputs_name=inputs.name if inputs and inputs.kind is inputs.KEYWORD_ONLY else None,
        request_name=request.name if request and request.kind in _BY_NAME else None,
    )


def _resolved(parameter: inspect.Parameter, call: Callable[..., object]) -> object:
    def stub() -> None: ...

    # One at a time: a name that exists for type checkers alone must not hide the others.
    stub.__annotations__ = {"it": parameter.annotation}
    if parameter.annotation is not _EMPTY:
        with suppress(Exception):  # whatever evaluating a string of the user's raises
            return typing.get_type_hints(stub, dict(namespace_of(call)), include_extras=True)["it"]
    written = parameter.annotation
    # As it is written: whoever validates says why not. What is no annotation at all says nothing.
    return written if isinstance(written, str) or typing.get_origin(written) else _EMPTY


# -- what calling it does --------------------------------------------------------------------------

_KINDS: Final[tuple[tuple[Callable[[object], bool], Kind], ...]] = (
    (inspect.isasyncgenfunction, Kind.ASYNC_GENERATOR),
    (inspect.isgeneratorfunction, Kind.GENERATOR),
    (inspect.iscoroutinefunction, Kind.COROUTINE),
)


def _kind(call: Callable[..., object]) -> Kind:
    # Not through functools.wraps, as the signature is: what counts is what is called first.
    outermost = _function(call)
    if makes_stream(outermost):
        return Kind.ASYNC_GENERATOR
    return next((kind for is_one, kind in _KINDS if is_one(outermost)), Kind.FUNCTION)


def _function(call: Callable[..., object]) -> Callable[..., object]:
    """Behind what Python itself puts around a function."""
    while True:
        if isinstance(call, functools.partial):
            call = call.func
        elif inspect.ismethod(call):
            call = call.__func__
        elif inspect.isroutine(call) or inspect.isclass(call):
            return call
        else:
            call = cast("Callable[..., object]", type(call).__call__)


def _asks(call: Callable[..., object], model: object) -> bool:
    """Whether it asks after the client by itself, alone or through helpers that are its own."""
    own = {base.__module__ for base in type(model).__mro__}
    todo, seen = list(_layers(call)), set[types.CodeType]()
    while todo:
        function = todo.pop()
        if function.__code__ in seen:
            continue
        seen.add(function.__code__)
        names = set(_names(function.__code__))
        if _ASKED in names:
            return True
        for name in names:
            helper = inspect.getattr_static(model, name, None)
            if helper is None:  # not `or`: what stands there may be an array, which has no truth
                helper = function.__globals__.get(name)
            if inspect.isfunction(helper) and helper.__module__ in own:
                todo += _layers(helper)
    return False


def _layers(call: Callable[..., object]) -> Iterator[types.FunctionType]:
    """The functions that a call goes through, from the outermost inwards."""
    layer: object = call
    while callable(layer):
        layer = _function(layer)
        if inspect.isfunction(layer):
            yield layer
        layer = getattr(layer, "__wrapped__", None)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)

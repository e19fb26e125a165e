"""What a model class may look like: one table of rules, for a live object and for its source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

KNOWN: Final = (
    "preprocess",
    "predict",
    "postprocess",
    "is_healthy",
    "setup_environment",
    "completions",
    "chat_completions",
    "embeddings",
    "messages",
    "responses",
    "websocket",
)
"""The methods that the runner calls, besides ``load``."""

STAGES: Final = ("preprocess", "predict", "postprocess")
ROUTES: Final = ("completions", "chat_completions", "embeddings", "messages", "responses")


class Takes(StrEnum):
    """What a method is called with."""

    NOTHING = "nothing"
    INPUTS = "inputs"
    REQUEST = "request"
    BOTH = "inputs and request"


class Kind(StrEnum):
    """How calling a method behaves."""

    FUNCTION = "function"
    COROUTINE = "coroutine"
    GENERATOR = "generator"
    ASYNC_GENERATOR = "async generator"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter as written: ``*args`` has its stars, ``annotation`` is text, "" if none."""

    name: str
    is_request: bool = False
    annotation: str = ""


@dataclass(frozen=True, slots=True)
class Shape:
    """One method, reduced to what the rules ask about; ``oddity`` says why it is no method."""

    name: str
    parameters: tuple[Parameter, ...] = ()
    kind: Kind = Kind.FUNCTION
    oddity: str = ""
    takes: Takes | None = field(init=False)  # None: the parameters fit no form

    def __post_init__(self) -> None:
        requests = tuple(parameter.is_request for parameter in self.parameters)
        takes = None if self.oddity else _FORMS.get(requests)
        object.__setattr__(self, "takes", takes)

    def __str__(self) -> str:
        return f"{self.name}({', '.join(parameter.name for parameter in self.parameters)})"


def not_a_function(value: str) -> str:
    """Why an attribute that has a method's name is none; ``value`` is how it reads."""
    if value == "None":
        return "is None: a method that there is has to be one; delete it"
    return f"is no function but {value:.80}: give it another name"


Shapes: TypeAlias = Mapping[str, Shape]

# Which of the parameters are requests → what the method takes. What is not here is refused.
_FORMS: Final[dict[tuple[bool, ...], Takes]] = {
    (): Takes.NOTHING,
    (False,): Takes.INPUTS,
    (True,): Takes.REQUEST,
    (False, True): Takes.BOTH,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a class cannot be served: ``method`` is None where it is about the class."""

    method: str | None
    text: str


def problems(class_name: str, shapes: Shapes) -> Iterator[Problem]:
    """Every rule that a class breaks, each with the way out; the text names class and method."""
    for name, shape in shapes.items():
        if shape.takes is None:
            yield Problem(name, f"{class_name}.{_why_refused(shape)}")
    for rule in _RULES:
        if rule.broken(shapes):
            about = f"{class_name}.{shapes[rule.method]}" if rule.method else class_name
            yield Problem(rule.method, f"{about}: {rule.text}")


def no_self(name: str) -> str:
    """Why a function of a class that takes nothing at all cannot be called as a method."""
    return f"takes no `self`: write `def {name}(self, inputs)`, or make it a staticmethod"


def load_problem(
    class_name: str, kind: Kind, required: Sequence[str], oddity: str = ""
) -> str | None:
    """Why ``load`` cannot be called as it is, without arguments; None if it can."""
    if oddity:
        return f"{class_name}.load {oddity}"
    if kind in (Kind.GENERATOR, Kind.ASYNC_GENERATOR):
        return f"{class_name}.load yields, so calling it runs nothing: leave out the `yield`"
    if required:
        names = ", ".join(f"`{name}`" for name in required)
        return (
            f"{class_name}.load({', '.join(required)}): it is called without arguments: leave out "
            f"{names}, or take it in the constructor"
        )
    return None


# -- one method alone --------------------------------------------------------------------------


def _why_refused(shape: Shape) -> str:
    if shape.oddity:
        return f"{shape.name} {shape.oddity}"
    return f"{shape}: {_why_no_form(shape.parameters)}"


def _why_no_form(parameters: tuple[Parameter, ...]) -> str:
    first, second, *rest = parameters
    if rest:
        names = ", ".join(f"`{parameter.name}`" for parameter in rest)
        return (
            "it cannot have more than two arguments, inputs and request, and has "
            f"{len(parameters)}: leave out {names}, or read it from the inputs"
        )
    if first.is_request:
        return (
            "it is not allowed to have request as first argument, request must be second: "
            f"let `{first.name}` and `{second.name}` change places"
        )
    return (
        "with two arguments it must have request as second argument (type annotated), and "
        f"{_why_no_request(second)}"
    )


def _why_no_request(parameter: Parameter) -> str:
    name = parameter.name
    if name.startswith("*"):
        return (
            f"`{name}` is none: leave it out; if a decorator put it there, have that use "
            "functools.wraps"
        )
    if not parameter.annotation:
        return (
            f"`{name}` has no annotation: write `{name}: fastapi.Request`, or leave it out and "
            "read it from the inputs"
        )
    return (
        f"`{name}` is annotated `{parameter.annotation}`: annotate it with fastapi.Request or a "
        "subclass, or leave it out and read it from the inputs"
    )


# -- methods together --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Rule:
    method: str | None
    broken: Callable[[Shapes], bool]
    text: str


def _takes(shapes: Shapes, name: str, *wrong: Takes) -> bool:
    return name in shapes and shapes[name].takes in wrong


_RULES: Final = (
    _Rule(
        "is_healthy",
        lambda shapes: _takes(shapes, "is_healthy", Takes.INPUTS, Takes.REQUEST, Takes.BOTH),
        "`is_healthy` must have only one argument: `self`; it is asked without a request",
    ),
    _Rule(
        "predict",
        lambda shapes: "preprocess" in shapes and _takes(shapes, "predict", Takes.REQUEST),
        "with a `preprocess` it cannot only have the request argument, for what `preprocess` "
        "returns would be lost: write `predict(self, inputs, request: fastapi.Request)`",
    ),
    _Rule(
        "postprocess",
        lambda shapes: _takes(shapes, "postprocess", Takes.REQUEST),
        "The `postprocess` method cannot only have the request argument, for what `predict` "
        "returns would be lost: write `postprocess(self, result, request: fastapi.Request)`",
    ),
    _Rule(
        None,
        # Truss refuses a class with routes alone, against its own documentation.
        lambda shapes: shapes.keys().isdisjoint({"predict", "websocket", *ROUTES}),
        "a model must have a `predict` or `websocket` method, or one of "
        + ", ".join(f"`{route}`" for route in ROUTES),
    ),
    _Rule(
        "websocket",
        lambda shapes: "websocket" in shapes and not shapes.keys().isdisjoint(STAGES),
        "a model cannot have both `websocket` and any of `preprocess`, `predict`, `postprocess`: "
        "make two classes of it",
    ),
    _Rule(
        "websocket",
        lambda shapes: _takes(shapes, "websocket", Takes.NOTHING, Takes.REQUEST, Takes.BOTH),
        "it must have only one argument: `websocket`; write "
        "`async def websocket(self, websocket: fastapi.WebSocket)`",
    ),
    _Rule(
        "websocket",
        lambda shapes: (
            _takes(shapes, "websocket", *Takes) and shapes["websocket"].kind is not Kind.COROUTINE
        ),
        "websocket methods must be async function definitions that do not yield: write "
        "`async def websocket(self, websocket: fastapi.WebSocket)`",
    ),
)

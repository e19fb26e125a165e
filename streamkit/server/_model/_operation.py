"""One method of a model in an OpenAPI document: what it takes, what it gives, what it refuses."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, Final, TypeAlias, Union

from streamkit.runner._model import REFS, Method, Methods, Validator

from ._schema import Gives, last_stage, takes_inputs, what_gives

Node: TypeAlias = dict[str, Any]

REFUSALS: Final = {
    400: "The body is not what the method takes: no JSON (or msgpack), or it fails validation.",
    408: "The body did not arrive in time.",
    413: "The body is too long.",
    429: "Too many requests wait already; `Retry-After` says when to try again.",
    499: "The request was cancelled.",
    500: "The model failed, or gave what cannot be sent.",
    503: "The model is loading, or the server shuts down; `Retry-After` says when to try again.",
    504: "The request did not finish before its deadline.",
}

_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_PARAMETERS: Final = {
    "model_name": "Any name: there is one model.",
    "id": "The `x-request-id` of a request.",
}
_JSON: Final = "application/json"
_BINARY: Final = "application/octet-stream"
_EVENTS: Final = "text/event-stream"
_PACKED: Final[Node] = {"schema": {"description": "The same in msgpack."}}
_CHUNKS: Final[Node] = {"schema": {"description": "The chunks as they come."}}
_JOINED: Final[Node] = {"schema": {"type": "string", "description": "The chunks, joined."}}


class Operation:
    """What runs one method.

    Args:
        method: The method.
        stages: All methods, if those around this one run with it.

    Attributes:
        schemas: What its own schemas name, for the document's ``components``.
    """

    __slots__ = ("_answer", "_body", "_method", "_refusals", "_stages", "schemas")

    def __init__(self, method: Method, stages: Methods | None = None) -> None:
        self.schemas: Node = {}
        self._method = method
        self._stages = stages
        first = (stages and stages.first) or method
        last = (stages and last_stage(stages)) or method
        self._body = self._body_of(first)
        self._answer = self._answer_of(what_gives(last))
        self._refusals = [status for status in REFUSALS if status != 400 or takes_inputs(first)]

    def at(self, path: str) -> Node:
        """What the document says of it at ``path``."""
        refused = {str(each): {"$ref": f"#/components/responses/{each}"} for each in self._refusals}
        return {
            **about("post", path, f"Run `{self._method.name}`."),
            **described(self._method),
            "requestBody": self._body,
            "responses": {"200": self._answer, **refused},
        }

    def _body_of(self, first: Method) -> Node:
        if not takes_inputs(first):
            said = "Anything: it is not parsed, the method reads it if it wants to."
            return {"description": said, "content": {"*/*": {}}}
        schema = self._schema("takes", first.annotation)
        return {"required": True, "content": {_JSON: {"schema": schema}, _BINARY: _PACKED}}

    def _answer_of(self, gives: Gives) -> Node:
        content: Node = {}
        if gives.streams:
            raw = {_BINARY: _CHUNKS} if self._stages else {}
            content = {_EVENTS: {"schema": {"type": "string"}}, _JSON: _JOINED, **raw}
        if gives.whole:
            schema = self._schema("gives", _either(gives.values))
            content = {**content, _JSON: {"schema": schema}, _BINARY: _PACKED}
        return {
            "description": " ".join(_manners(gives)),
            "headers": {"x-request-id": text("The id that `/v1/requests/{id}` takes.")},
            "content": content,
        }

    def _schema(self, verb: str, annotation: object) -> Node:
        """Put what a schema names under names of this place's own.

        Two methods may each have a class of the same name.
        """
        prefix = f"{self._method.name}.{verb}."
        refs = REFS.replace("{model}", prefix + "{model}")
        schema = Validator(annotation).schema(refs, answer=verb == "gives")
        if schema is None:
            return {}
        named: Node = schema.pop("$defs", {})
        self.schemas |= {prefix + name: each for name, each in named.items()}
        return schema


def about(verb: str, path: str, summary: str) -> Node:
    """What an operation says in any case: its id, one sentence, what is variable in the path."""
    names = _PARAMETER.findall(path)
    word = re.sub(r"\W+", "_", path).strip("_") or "root"
    parameters = [
        {"name": name, "in": "path", "required": True, **text(_PARAMETERS[name])} for name in names
    ]
    return {
        "operationId": f"{verb}_{word}",
        "summary": summary,
        **({"parameters": parameters} if parameters else {}),
    }


def described(method: Method) -> Node:
    """The docstring of a method, where it has one."""
    said = inspect.getdoc(method.call)
    return {"description": said} if said else {}


def text(description: str) -> Node:
    """A header or parameter that is text."""
    return {"description": description, "schema": {"type": "string"}}


def _either(annotations: tuple[Any, ...]) -> object:
    if len(annotations) < 2:  # one alone may be no type at all
        return annotations[0] if annotations else None
    return Union[annotations]  # noqa: UP007 - of a tuple


def _manners(gives: Gives) -> Iterator[str]:
    if gives.whole:
        yield "A value, as JSON; as msgpack to who sent msgpack."
    if gives.streams:
        yield (
            "A stream: events to who accepts `text/event-stream`, one JSON string to who accepts "
            "`application/json` alone, else as it comes."
        )
    if gives.unknown and gives.whole:
        yield "If the method returns a stream or a response, that is the answer."

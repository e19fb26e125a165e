"""The OpenAPI document of a served model class: every path, and what its methods say of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from streamkit.runner._model import Method, Methods

from ._operation import REFUSALS, Node, Operation, about, described, text

_PREDICT: Final = "predict"
_WEBSOCKET: Final = "/v1/websocket"
_CANCEL: Final = "/v1/requests/{id}/cancel"
_ERROR: Final = "streamkit.Error"  # no class of the model's has a dot in its name
_RETRIES: Final = (429, 503)

_LOOK: Final = {
    "/": "The process works.",
    "/ping": "As `/v1/models/{model_name}/loaded`, for SageMaker.",
    "/v1/models": "The model, as OpenAI's clients list them.",
    "/v1/models/{model_name}": "The model is loaded, and healthy by its own word.",
    "/v1/models/{model_name}/loaded": "The model is loaded, and takes requests.",
    "/v1/models/{model_name}/schema": "JSON schemas of what `predict` takes and gives.",
    "/v1/requests": "What is in flight, and what ended lately.",
    "/v1/requests/{id}": "One request.",
    "/v1/engine": "The books of the model's slots.",
    "/health/live": "The process works.",
    "/health/ready": "Requests are taken.",
    "/metrics": "Prometheus text.",
    "/openapi.json": "This document.",
}


def openapi(methods: Methods, run: Mapping[str, str], *, title: str, version: str) -> Node:
    """Return the document, OpenAPI 3.1, as a value that JSON has.

    Args:
        methods: Of the model.
        run: The method that each path runs; those that the model does not have are left out.
        title: What to call the API.
        version: Of the API.
    """
    operations = {
        name: Operation(method, methods if name == _PREDICT else None)
        for name, method in methods.by_name.items()
        if name in run.values()
    }
    schemas: Node = {_ERROR: _error()}
    for operation in operations.values():
        schemas |= operation.schemas
    paths = {path: {"get": _look(path, said)} for path, said in _LOOK.items()}
    paths[_CANCEL] = {"post": _cancel()}
    for path, name in run.items():
        if name in operations:
            paths[path] = {"post": operations[name].at(path)}
    if methods.websocket is not None:
        paths[_WEBSOCKET] = {"get": _upgrade(methods.websocket)}
    refusals = {str(status): _refusal(status) for status in REFUSALS}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {"schemas": schemas, "responses": refusals},
    }


def _look(path: str, said: str) -> Node:
    return {**about("get", path, said), "responses": {"200": {"description": said}}}


def _cancel() -> Node:
    return {
        **about("post", _CANCEL, "Cut a request short."),
        "responses": {
            "200": {"description": "It is `cancelled`, or had `already_finished`."},
            "401": {"description": "There is an operator key, and this is neither it nor a token."},
            "404": {"description": "No such request."},
        },
    }


def _upgrade(websocket: Method) -> Node:
    return {
        **about("get", _WEBSOCKET, "Speak with the model over a websocket."),
        **described(websocket),
        "responses": {"101": {"description": "The model speaks."}},
    }


def _refusal(status: int) -> Node:
    headers = {
        "x-baseten-error-source": text("`04`: this server."),
        "x-baseten-error-code": text("`700` the client, `600` the model, `500` the server."),
    }
    if status in _RETRIES:
        headers["retry-after"] = {"description": "Seconds.", "schema": {"type": "integer"}}
    error = {"schema": {"$ref": f"#/components/schemas/{_ERROR}"}}
    return {
        "description": REFUSALS[status],
        "headers": headers,
        "content": {"application/json": error},
    }


def _error() -> Node:
    # `HTTPException(detail=…)` of the model's may hold any JSON.
    said = {"description": "What is wrong: text, unless the model itself raised something else."}
    return {"type": "object", "properties": {"error": said}, "required": ["error"]}

"""OpenAI's routes of a served engine."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from streamkit.asgi import EventStream
from streamkit.errors import UnsupportedOption
from streamkit.runner import Call, EngineRunner, Output
from streamkit.server._body import explain, path_of, problems_of, read_json
from streamkit.server._engine_route import EngineRoute
from streamkit.server._problems import InvalidRequest
from streamkit.server.settings import Settings

from ._ask import UNSUPPORTED, Ask, ChatAsk, CompletionAsk
from ._framing import DONE, describe_model, error_content, list_of, unix_now
from ._say import Chat, Form, Head, Pieces, Text, event, usage_of


class Kind(NamedTuple):
    """What one route takes, and the form of what it says."""

    ask: type[Ask]
    form: Form


KINDS: Final = {
    "/v1/chat/completions": Kind(ChatAsk, Chat()),
    "/v1/completions": Kind(CompletionAsk, Text()),
}


class Completions(EngineRoute):
    """One of the two."""

    __slots__ = ("_kind",)

    def __init__(self, runner: EngineRunner, settings: Settings, kind: Kind) -> None:
        super().__init__(runner, settings)
        self._kind = kind

    async def _answer(self, request: Request, call: Call) -> Response:
        body = await read_json(request, self._settings, call.token)
        ask = self._parse(body)
        takes = self._runner.engine.capabilities.takes
        requests = ask.requests(takes, self._settings.max_tokens_limit)
        output = self._admit(call, requests)
        form, head = (
            self._kind.form,
            Head(id=call.id, created=unix_now(), model=self._runner.engine.name),
        )
        if not ask.stream:
            choices = await call.read()
            return JSONResponse(form.answer(head, choices, usage_of(output)))
        count = len(requests) * ask.choices
        pieces = Pieces(form, head, choices=count, wants_usage=ask.wants_usage)
        return PieceStream(call, pieces, output, heartbeat=self._settings.heartbeat)

    def _parse(self, body: bytes) -> Ask:
        try:
            return self._kind.ask.model_validate_json(body, strict=True)
        except ValidationError as error:
            kinds = [each["type"] for each in problems_of(error)[:1]]
            code = UNSUPPORTED if UNSUPPORTED in kinds else None
            raise InvalidRequest(explain(error), param=path_of(error), code=code) from None

    def _refusal(self, error: ValueError) -> HTTPException:
        if isinstance(error, UnsupportedOption):
            param = _PARAMS.get(error.option, error.option)
            return InvalidRequest(str(error), param=param, code=UNSUPPORTED)
        return InvalidRequest(str(error), param=None)


_PARAMS: Final = {"prompt_ids": "prompt"}  # our words that are not OpenAI's


class PieceStream(EventStream):
    """The pieces, at the end ``data: [DONE]``; where it breaks, ``data: {"error": …}`` instead."""

    def __init__(
        self, call: Call, pieces: Pieces, output: Output, *, heartbeat: float | None
    ) -> None:
        super().__init__(call.chunks(), heartbeat=heartbeat)
        self._pieces = pieces
        self._output = output

    def _encode(self, chunk: Any) -> bytes:
        return self._pieces.encode(chunk)

    def _last(self, count: int) -> bytes:
        super()._last(count)  # which ends the heartbeat
        return self._pieces.end(self._output) + DONE

    def _farewell(self, error: Exception) -> bytes:
        return event(error_content(error))


class Models:
    """``GET /v1/models``: the one that there is."""

    __slots__ = ("_name", "_since")

    def __init__(self, name: str) -> None:
        self._name = name
        self._since = unix_now()

    async def all(self, _: Request) -> Response:
        """The list."""
        return JSONResponse(list_of(describe_model(self._name, self._since)))

    async def one(self, request: Request) -> Response:
        """It, by its name."""
        name: str = request.path_params["model"]
        if name != self._name:
            message = f"there is no model {name[:80]!r}, only {self._name!r}"
            raise InvalidRequest(message, param="model", code="model_not_found", status=404)
        return JSONResponse(describe_model(self._name, self._since))


def openai_routes(runner: EngineRunner, settings: Settings) -> list[Route]:
    """All of them."""
    models = Models(runner.engine.name)
    run = [
        Route(path, Completions(runner, settings, kind), methods=["POST"])
        for path, kind in KINDS.items()
    ]
    look = [Route("/v1/models", models.all), Route("/v1/models/{model:path}", models.one)]
    return [*run, *look]

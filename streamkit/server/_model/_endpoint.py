"""One route that runs the model, from the arrival of a request to its closed books."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from streamkit._core import SCOPE_KEY, Reason, hold
from streamkit.errors import BadPayload, StreamCancelled
from streamkit.runner._model import ModelCall, ModelRunner
from streamkit.server._accept import header
from streamkit.server._visit import VISIT_KEY, Visit
from streamkit.server.settings import Settings

from ._answers import Form, response_to
from ._errors import (
    ClientError,
    ModelBroke,
    NoForm,
    answer_in,
    answer_to,
    as_failure,
    log_failure,
    not_ready,
    raise_cancelled,
)
from ._head import with_sound_head
from ._inputs import PREDICT, ModelInputs
from ._request import ModelRequest


class Endpoint:
    """An ASGI app: its call lasts until the answer has been sent.

    Args:
        runner: Runs the model.
        settings: How.
        inputs: Understands bodies.
        method: What is run: ``predict`` with the stages around it, or one method alone.
    """

    __slots__ = ("_inputs", "_method", "_runner", "_settings")

    def __init__(
        self, runner: ModelRunner, settings: Settings, inputs: ModelInputs, method: str = PREDICT
    ) -> None:
        self._runner = runner
        self._settings = settings
        self._inputs = inputs
        self._method = method

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        visit: Visit = scope[VISIT_KEY]
        owner = scope[SCOPE_KEY]
        call = self._runner.accept(
            request_id=visit.id, token=owner.token, on_closed=visit.books_closed
        )
        visit.wait_for_books(call.id)
        call.on_given_up = lambda: hold(
            lambda: _last_word(scope, receive, send, call), name=f"the last word to {call.id}"
        )
        try:
            with call:
                await self._serve(scope, receive, send, call)
        except Exception as error:  # noqa: BLE001 - answered, or logged
            log_failure(error, call.id)
            # Where nobody listens, or the status has gone out, nothing can be said any more: the
            # answer stays incomplete, and the connection ends un-cleanly.
            if not (owner.gone or owner.response_started):
                await _tell(error, scope, receive, send, call)
        finally:
            call.on_given_up = None  # it names the call: a circle, which only a collection opens

    async def _serve(self, scope: Scope, receive: Receive, send: Send, call: ModelCall) -> None:
        request = ModelRequest(scope, receive, send, call)
        try:
            response = await self._run(request, call)
            await response(request.scope, request.receive, send)
            await _answered(scope, call)
        except (BadPayload, ClientError):
            call.refuse()
            raise
        except Exception as error:
            raise_cancelled(error, call)
            if (answer := answer_in(error)) is not None:
                raise answer from None
            raise
        except BaseException as error:
            if (failure := as_failure(error)) is not None:
                raise failure from error  # noqa: ASYNC104 - it was the model's own
            if isinstance(error, asyncio.CancelledError):
                call.cancel(Reason.DRAIN, "the server cancelled the request's task")
            raise

    async def _run(self, request: ModelRequest, call: ModelCall) -> ASGIApp:
        body = await request.read(self._settings)
        if self._runner.not_ready() is not None:
            raise not_ready()
        kind = header(request.scope, b"content-type")
        inputs = await self._inputs.read(self._method, body, kind, call.token)
        call.admit()
        if self._method == PREDICT:
            result = await call.predict(inputs, request)
        else:
            result = await call.method(self._method, inputs, request)
        form = Form(request.scope, method=self._method, heartbeat=self._settings.heartbeat)
        return await response_to(result, call, form)


async def _answered(scope: Scope, call: ModelCall) -> None:
    owner = scope[SCOPE_KEY]
    if owner.response_complete:
        await call.complete()
    elif not owner.response_started:  # a response of the model's own making
        call.token.raise_if_cancelled()
        raise ModelBroke("its response sent nothing")


async def _tell(
    error: Exception, scope: Scope, receive: Receive, send: Send, call: ModelCall
) -> None:
    try:
        await answer_to(error)(scope, receive, with_sound_head(send))
    except NoForm as no_form:  # the status or the headers of an HTTPException of the model's
        log_failure(no_form, call.id)
        await answer_to(no_form)(scope, receive, send)


async def _last_word(scope: Scope, receive: Receive, send: Send, call: ModelCall) -> None:
    """Answer in the place of code that swallows its cancel and keeps its request waiting."""
    owner, cause = scope[SCOPE_KEY], call.token.cancellation
    if owner.gone or owner.response_complete or cause is None:
        return
    if not owner.response_started:
        await answer_to(StreamCancelled(cause))(scope, receive, send)
    elif owner.transport is not None:
        owner.transport.abort()

"""Bodies, understood as the methods of one model want them."""

from __future__ import annotations

import inspect
import logging
from typing import Any, Final

from streamkit._core import CancelToken
from streamkit.runner._model import LoadedModel, Takes, Validator, parse_inputs
from streamkit.streams import call_in_thread

from ._errors import method_missing

logger = logging.getLogger("streamkit.model")

PREDICT: Final = "predict"
"""The method with stages around it; each other one runs alone."""

_MEANS_ANYTHING: Final = (inspect.Parameter.empty, Any, object, None)
_PARSED_AT_ONCE: Final = 64 << 10  # bytes; that takes less than handing it to a thread delays it
_INPUTS: Final = (Takes.INPUTS, Takes.BOTH)


class ModelInputs:
    """What each method of one model takes.

    Args:
        models_only: Whether inputs are validated by pydantic's models alone, as on Truss.
    """

    __slots__ = ("_methods", "_models_only", "_validators")

    def __init__(self, *, models_only: bool = False) -> None:
        self._models_only = models_only
        self._methods: frozenset[str] = frozenset()
        self._validators: dict[str, Validator] = {}

    def attach(self, loaded: LoadedModel) -> None:
        """The model is loaded: read each annotation, once."""
        methods = dict(loaded.methods.by_name)
        self._methods = frozenset(methods)
        if (first := loaded.methods.first) is not None:
            methods[PREDICT] = first  # the stage that the client's inputs are given to
        self._validators = {
            name: self._validator(method.annotation)
            for name, method in methods.items()
            if method.takes in _INPUTS and name != "websocket"  # that one gets the websocket
        }
        for name, validator in self._validators.items():
            annotation = methods[name].annotation
            meant = not any(annotation is nothing for nothing in _MEANS_ANYTHING)
            if meant and not self._models_only and validator.why_inactive:
                logger.warning("inputs of `%s` are not validated: %s", name, validator.why_inactive)

    def _validator(self, annotation: object) -> Validator:
        validator = Validator(annotation)
        return Validator(Any) if self._models_only and not validator.is_model else validator

    async def read(
        self, method: str, body: bytes, content_type: str | None, token: CancelToken
    ) -> object:
        """Return the inputs of ``method``; None for one that takes none, whatever the body is.

        Raises:
            ClientError: The model has no such method.
            BadPayload: The body is not what the method takes.
            StreamCancelled: The token was cancelled; a long body is parsed on to its end.
        """
        if method not in self._methods:
            raise method_missing(method)
        validator = self._validators.get(method)
        if validator is None:
            return None
        if len(body) <= _PARSED_AT_ONCE:
            return parse_inputs(body, content_type, validator)
        # While a body of megabytes is parsed on the loop, nobody hears of a client that left.
        return await call_in_thread(parse_inputs, (body, content_type, validator), {}, token=token)

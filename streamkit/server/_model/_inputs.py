"""Bodies, understood as the methods of one model want them."""

from __future__ import annotations

from typing import Final

from streamkit.runner._model import LoadedModel, Takes, Validator, parse_inputs

from ._errors import method_missing

PREDICT: Final = "predict"
"""The method with stages around it; each other one runs alone."""

_INPUTS: Final = (Takes.INPUTS, Takes.BOTH)


class ModelInputs:
    """What each method of one model takes."""

    __slots__ = ("_methods", "_validators")

    def __init__(self) -> None:
        self._methods: frozenset[str] = frozenset()
        self._validators: dict[str, Validator] = {}

    def attach(self, loaded: LoadedModel) -> None:
        """The model is loaded: read each annotation, once."""
        methods = dict(loaded.methods.by_name)
        self._methods = frozenset(methods)
        if (first := loaded.methods.first) is not None:
            methods[PREDICT] = first  # the stage that the client's inputs are given to
        self._validators = {
            name: Validator(method.annotation)
            for name, method in methods.items()
            if method.takes in _INPUTS
        }

    def read(self, method: str, body: bytes, content_type: str | None) -> object:
        """Return the inputs of ``method``; None for one that takes none, whatever the body is.

        Raises:
            ClientError: The model has no such method.
            BadPayload: The body is not what the method takes.
        """
        if method not in self._methods:
            raise method_missing(method)
        validator = self._validators.get(method)
        return None if validator is None else parse_inputs(body, content_type, validator)

"""A model in Truss's layout, with what fails there: postponed annotations."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import fastapi
from borrowed import SEPARATOR
from model.helper import shout
from pydantic import BaseModel


class Words(BaseModel):
    words: list[str]
    seconds: float = 0.0


@dataclass
class Counts:
    calls: dict[str, int] = field(default_factory=dict)


class Model:
    def __init__(self, config: dict[str, Any], **kwargs: Any) -> None:
        self._name = config["model_name"]
        self._counts: Counts | None = None

    def load(self) -> None:
        self._counts = Counts()

    async def preprocess(self, inputs: Words, request: fastapi.Request) -> Words:
        request.state.asked = len(inputs.words)
        return inputs

    def predict(self, inputs: Words) -> str:
        time.sleep(inputs.seconds)  # noqa: TID251 - a model computes
        return SEPARATOR.join(shout(word) for word in inputs.words)

    def postprocess(self, text: str, request: fastapi.Request) -> dict[str, Any]:
        return {"name": self._name, "text": text, "asked": request.state.asked}

    async def is_healthy(self) -> bool:
        return self._counts is not None

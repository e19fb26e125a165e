"""Asks for all that a constructor may ask for, fails its first load, and says what it saw."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import multiprocessing
import os
import pickle
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import anyio
from lent import BORROWED
from model.helper import HELP
from model.more.deep import HELP as DEEP
from pydantic import BaseModel, RootModel

from . import helper

T = TypeVar("T")


@dataclasses.dataclass
class Counts:
    calls: list[Counts]


class Numbers(RootModel[list[int]]):
    pass


class Box(BaseModel, Generic[T]):
    inside: T


class Model:
    def __init__(self, **kwargs: Any) -> None:
        self._given = kwargs
        self._events: list[str] = ["made"]

    def setup_environment(self, environment: dict[str, Any]) -> None:
        self._events.append("told its environment")

    def load(self) -> None:
        self._events.append("load")
        if self._events.count("load") == 1:
            raise OSError("the first one fails")

    def predict(self, inputs: Box[Numbers]) -> Any:
        secrets, data = self._given["secrets"], self._given["data_dir"]
        return {
            "given": sorted(self._given),
            "events": self._events,
            "config": self._given["config"]["runtime"]["predict_concurrency"],
            "data": [str(data), (data / "weights.txt").read_text()],
            "environment": self._given["environment"],
            "engine": self._given["trt_llm"],
            "secrets": [
                secrets["mounted"],
                secrets["configured"],
                secrets.get("missing", "a default"),
                secrets.get("undeclared"),
                sorted(secrets._base_secrets),
            ],
            "variable": os.environ["TOLD"],
            "imports": [BORROWED, HELP, DEEP, helper.HELP, __name__],
            "at": Path.cwd().name,
            "inputs": inputs.inside.root,
            "pickled": type(pickle.loads(pickle.dumps(Counts([Counts([])]))).calls[0]).__name__,
        }

    async def chat_completions(self) -> AsyncIterator[str]:
        yield "one "
        await anyio.sleep(60)

    def completions(self, inputs: list[int]) -> Any:
        """In a process of its own, which imports this file by its name."""
        spawned = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawned) as pool:
            return len(pool.submit(total, inputs).result().calls)


def total(numbers: list[int]) -> Counts:
    return Counts([Counts([]) for _ in numbers])

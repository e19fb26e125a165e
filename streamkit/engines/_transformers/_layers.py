"""The way out of a long prefill: a hook before each layer, while there is a prefill."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

Asked = Callable[[], bool]


class Left(BaseException):
    """The generation was cancelled. No ``Exception``: nobody on the way may take it for one."""


class LayerHooks:
    """Hooks in a model's layers, that raise :class:`Left` in the thread of a cancelled generation.

    A stopping criterion is asked between tokens, first when the whole prompt is through. These are
    asked before each layer. They belong to the model, and others may be computing in it: a hook
    finds its own generation by a context variable, and leaves threads alone that have none. They
    are there only while a prefill is: a hook costs each layer of each token some microseconds.

    Args:
        model: A ``PreTrainedModel``.

    Attributes:
        layers: The modules that have one; none where the model's layers were not found.
    """

    def __init__(self, model: Any) -> None:
        self.layers: list[Any] = _layers_of(model)
        self._lock = threading.Lock()
        self._watches = 0
        self._handles: list[Any] = []

    def watch(self, asked: Asked) -> Watch:
        """Return a watch over this thread's generation, which has begun; end it."""
        with self._lock:
            self._watches += 1
            if self._watches == 1:
                self._handles = [layer.register_forward_pre_hook(_ask) for layer in self.layers]
        return Watch(self, asked)

    def end(self) -> None:
        """One watch less; the last one takes the hooks along."""
        with self._lock:
            self._watches -= 1
            if self._watches == 0:
                for handle in self._handles:
                    handle.remove()
                self._handles.clear()

    def __repr__(self) -> str:
        return f"<LayerHooks in {len(self.layers)} layers, {self._watches} watches>"


class Watch:
    """One generation's part in the hooks; made and ended in its thread."""

    __slots__ = ("_hooks", "_mark")

    def __init__(self, hooks: LayerHooks, asked: Asked) -> None:
        self._hooks: LayerHooks | None = hooks
        self._mark = _asked.set(asked)

    def end(self) -> None:
        """The prefill is over. Idempotent."""
        if self._hooks is not None:
            hooks, self._hooks = self._hooks, None
            _asked.reset(self._mark)
            hooks.end()


_asked: Final[ContextVar[Asked | None]] = ContextVar("streamkit_transformers_asked", default=None)


@contextmanager
def watching(hooks: LayerHooks, asked: Asked) -> Generator[Watch]:
    """A watch that ends with the block, if not before."""
    watch = hooks.watch(asked)
    try:
        yield watch
    finally:
        watch.end()


def _ask(_module: object, _inputs: object) -> None:
    asked = _asked.get()
    if asked is not None and asked():
        raise Left


def _layers_of(model: Any) -> list[Any]:
    """Decoder layers, and those of encoders: whatever transformers itself treats as one layer."""
    # Its name for them: each model's layers derive from it, for gradient checkpointing by layer.
    kind = importlib.import_module("transformers.modeling_layers").GradientCheckpointingLayer
    return [module for module in model.modules() if isinstance(module, kind)]

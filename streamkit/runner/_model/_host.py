"""What one request to a model class needs of the runner that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from streamkit.runner._case import Host

from ._gap import GapLimits
from ._served import ServedModel
from ._slots import Slots

if TYPE_CHECKING:
    from ._loading import LoadedModel


class Options(Protocol):
    """What it needs of the options (:class:`ModelOptions`)."""

    @property
    def max_wait(self) -> float | None:
        """Seconds that a request may wait for a slot."""
        ...

    @property
    def slots_cover(self) -> str:
        """What takes a slot."""
        ...

    @property
    def interrupt_threads(self) -> bool:
        """Whether a cancel raises in running sync code."""
        ...


class ModelHost(Host, Protocol):
    """The runner, as a request sees it."""

    gaps: GapLimits
    books: ServedModel

    @property
    def options(self) -> Options:
        """How the model is run."""
        ...

    @property
    def loaded(self) -> LoadedModel | None:
        """The model, once it is loaded."""
        ...

    @property
    def slots(self) -> Slots:
        """Those of ``predict``."""
        ...

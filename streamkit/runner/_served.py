"""What a runner serves: an engine, or a model class; what both can say of themselves."""

from __future__ import annotations

from typing import Protocol

from streamkit.engines import Capabilities, EngineStatistics


class Served(Protocol):
    """The books that admission, metrics and ``/v1/engine`` read."""

    @property
    def name(self) -> str:
        """How it is called."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What is true of it when something is cancelled."""
        ...

    @property
    def failure(self) -> BaseException | None:
        """What it died of, or None."""
        ...

    def statistics(self) -> EngineStatistics | None:
        """Its own counts; None if it keeps none."""
        ...

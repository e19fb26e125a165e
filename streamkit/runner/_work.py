"""What an engine does for one request: a generation, or several; stop strings where it has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from streamkit._core import CancelToken
from streamkit.engines import (
    Engine,
    Generation,
    GenerationRequest,
    PhaseListener,
    StopReport,
    prove_stopped,
)
from streamkit.engines._stop import StopStrings
from streamkit.engines._together import Reader, Together


class Work:
    """The generation of a request, its chunks, and the proof of its stop.

    Args:
        engine: What generates.
        requests: What to generate, one generation each.
        request_id: The request's id.
        token: What cuts it short.
        on_phase: Told of each phase that a generation enters.

    Raises:
        ValueError: The engine could never serve such a request.
        UsageBug: A request with this id is in flight.

    Attributes:
        generation: It, or all of them as one.
        reader: What gives its chunks.
    """

    __slots__ = ("_cutters", "_engine", "generation", "reader")

    def __init__(
        self,
        engine: Engine,
        requests: Sequence[GenerationRequest],
        *,
        request_id: str,
        token: CancelToken,
        on_phase: PhaseListener,
    ) -> None:
        self._engine = engine
        self._cutters: list[StopStrings] = []
        # No client can choose an id with a number sign in it.
        ids = [f"{request_id}#{number}" for number in range(len(requests))]
        if len(requests) == 1:
            ids = [request_id]
        parts = [
            engine.open(self._for_engine(each), request_id=id_, token=token, on_phase=on_phase)
            for each, id_ in zip(requests, ids, strict=True)
        ]
        readers = [self._reader_of(*each) for each in zip(parts, requests, strict=True)]
        self.generation: Generation = parts[0]
        self.reader: Reader = readers[0]
        if len(parts) > 1:
            self.generation = self.reader = Together(request_id, parts, readers, requests[0].n)

    @property
    def cut(self) -> bool:
        """Whether the engine was told to abort because its answer was whole before it ended."""
        return any(cutter.cut for cutter in self._cutters)

    @property
    def dropped(self) -> int:
        """Tokens that came after the end of their choice."""
        return sum(cutter.dropped for cutter in self._cutters)

    async def prove_stopped(self) -> StopReport:
        """Return the proof that the engine has let go of it, or the report that it has not.

        Raises:
            UsageBug: It runs and was not cancelled.

        Cancellation:
            Stops waiting.
        """
        generation = self.generation
        if isinstance(generation, Together):
            return await generation.prove_stopped(self._engine)
        return await prove_stopped(generation, self._engine)

    def _for_engine(self, request: GenerationRequest) -> GenerationRequest:
        return replace(request, stop=()) if self._stops_here(request) else request

    def _stops_here(self, request: GenerationRequest) -> bool:
        return bool(request.stop) and "stop" not in self._engine.capabilities.takes

    def _reader_of(self, generation: Generation, request: GenerationRequest) -> Reader:
        if not self._stops_here(request):
            return generation
        cutter = StopStrings(generation, request.stop, request.n)
        self._cutters.append(cutter)
        return cutter

    def __repr__(self) -> str:
        return f"<Work {self.generation!r}>"

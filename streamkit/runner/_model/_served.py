"""The books of a model class as a whole, in the words of an engine's."""

from __future__ import annotations

from collections import Counter
from typing import Final

from streamkit.engines import Capabilities, EngineStatistics, Misbehaviour, Proof

from ._slots import Slots

_CAPABILITIES: Final = Capabilities(
    cancel_queued=True,
    cancel_prefill="node",  # at the await, or the question, that its code comes to next
    extra_steps=1,  # a sync generator ends its running next()
    answers_cancel="always",
    early_cancel_safe=True,
    fence=False,
    observes=True,
    backpressure=True,
    thread_safe_cancel=True,
    kill=False,  # nobody can end a thread
    proof=Proof.JOINED,
)


class ServedModel:
    """What ``/v1/engine``, metrics and admission read of a model class.

    Attributes:
        name: The model's name.
        failure: Why it did not load, or None.
        slots: Those of ``predict``; None until it is loaded.
        calls: Calls of its methods so far.
        chunks: Values and chunks that ended requests got out of it.
    """

    __slots__ = ("calls", "chunks", "failure", "misbehaviours", "name", "slots")

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.failure: BaseException | None = None
        self.slots: Slots | None = None
        self.calls: int = 0
        self.chunks: int = 0
        self.misbehaviours: Counter[Misbehaviour] = Counter()

    @property
    def capabilities(self) -> Capabilities:
        """What is true of every model class when a request is cancelled."""
        return _CAPABILITIES

    def statistics(self) -> EngineStatistics | None:
        """Its counts; None until it is loaded."""
        slots = self.slots
        if slots is None:
            return None
        return EngineStatistics(
            slots=slots.capacity,
            running=slots.taken,
            queued=slots.waiting,
            steps=self.calls,
            tokens=self.chunks,
            quarantined=slots.quarantined,
            misbehaviours=dict(self.misbehaviours),
        )

    def __repr__(self) -> str:
        return f"<ServedModel {self.name} {self.slots!r}>"

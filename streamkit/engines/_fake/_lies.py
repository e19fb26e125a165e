"""Ways in which an engine breaks its word about an abort; each is what the honest engine is not."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol


class Acts(Protocol):
    """What an engine can do about an abort."""

    def stop(self, request_id: str, *, answer: bool = True) -> None:
        """Take the request out, and say so or not."""

    def answer(self, request_id: str) -> None:
        """Say that it was taken out."""


class SimulatedCrash(Exception):
    """The fake engine died because it was told to."""


class Honest:
    """Does what it was told, between two steps, and says so.

    Attributes:
        delay: Seconds that an abort, or a fence, waits before the engine looks at it.
    """

    __slots__ = ("delay",)

    def __init__(self) -> None:
        self.delay = 0.0

    def abort(self, engine: Acts, request_id: str) -> None:
        """An abort is looked at."""
        engine.stop(request_id)

    def fence(self, reply: Callable[[], object]) -> None:
        """A fence is looked at: everything that was sent before has been."""
        reply()

    def step(self, number: int) -> None:
        """A step is about to count; may raise, then the engine dies in it."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class _IgnoreAbort(Honest):
    __slots__ = ()

    def abort(self, engine: Acts, request_id: str) -> None:
        pass


class _LoseAbort(Honest):
    __slots__ = ("_every", "_seen")

    def __init__(self, every: int) -> None:
        super().__init__()
        self._every = every
        self._seen = 0

    def abort(self, engine: Acts, request_id: str) -> None:
        lost = self._seen % self._every == 0
        self._seen += 1
        if not lost:
            engine.stop(request_id)


class _AckAndRunOn(Honest):
    __slots__ = ()

    def abort(self, engine: Acts, request_id: str) -> None:
        engine.answer(request_id)


class _AnswerLate(Honest):
    __slots__ = ()

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.delay = seconds


class _NeverAnswer(Honest):
    __slots__ = ()

    def abort(self, engine: Acts, request_id: str) -> None:
        engine.stop(request_id, answer=False)

    def fence(self, reply: Callable[[], object]) -> None:
        pass


class _CrashOnAbort(Honest):
    __slots__ = ("_doomed",)

    def __init__(self) -> None:
        super().__init__()
        self._doomed = False

    def abort(self, engine: Acts, request_id: str) -> None:
        self._doomed = True

    def step(self, number: int) -> None:
        if self._doomed:
            raise SimulatedCrash(f"crashed in step {number}, the one after an abort")


class _CrashAtStep(Honest):
    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def step(self, number: int) -> None:
        if number == self._number:
            raise SimulatedCrash(f"crashed in step {number}")


class _Block(Honest):
    __slots__ = ("_seconds",)

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def abort(self, engine: Acts, request_id: str) -> None:
        # The misdeed itself: nothing else runs in this thread meanwhile.
        time.sleep(self._seconds)  # noqa: TID251
        engine.stop(request_id)


_Build = Callable[[], Honest]
_BuildFrom = Callable[[float], Honest]


@dataclass(frozen=True, slots=True)
class _Lie:
    alone: _Build | None  # without an argument
    argument: str = ""
    build: _BuildFrom | None = None
    low: float = 0.0
    high: float = math.inf
    whole: bool = False


_SECONDS: Final = ("SECONDS", 0.001, 3600.0)

LIES: Final[Mapping[str, _Lie]] = {
    "ignore_abort": _Lie(_IgnoreAbort),
    "lose_abort": _Lie(None, "K", lambda k: _LoseAbort(int(k)), 2, 1_000_000, whole=True),
    "ack_and_run_on": _Lie(_AckAndRunOn),
    "answer_late": _Lie(None, _SECONDS[0], _AnswerLate, *_SECONDS[1:]),
    "never_answer": _Lie(_NeverAnswer),
    "crash": _Lie(_CrashOnAbort, "STEP", lambda n: _CrashAtStep(int(n)), 1, 10**9, whole=True),
    "block": _Lie(None, _SECONDS[0], _Block, *_SECONDS[1:]),
}


def forms() -> str:
    """All lies as they are written, for messages."""
    return ", ".join(form for name, lie in LIES.items() for form in _forms(name, lie))


def build_lie(text: str | None) -> Honest:
    """Return the liar that ``text`` means; an honest engine for None.

    Raises:
        ValueError: It means none; the message lists those that there are.
    """
    if text is None:
        return Honest()
    name, colon, argument = text.partition(":")
    lie = LIES.get(name)
    if lie is None:
        raise ValueError(f"unknown lie {text!r}; known: {forms()}")
    if not colon and lie.alone is not None:
        return lie.alone()
    number = _number(argument, lie) if colon and lie.build is not None else None
    if number is None or lie.build is None:
        raise ValueError(f"lie {text!r} must be written {_explain(name, lie)}; known: {forms()}")
    return lie.build(number)


def _forms(name: str, lie: _Lie) -> list[str]:
    bare = [name] if lie.alone is not None else []
    return bare + ([f"{name}:{lie.argument}"] if lie.build is not None else [])


def _explain(name: str, lie: _Lie) -> str:
    written = " or ".join(_forms(name, lie))
    if lie.build is None:
        return written
    kind = "a whole number" if lie.whole else "a number"
    return f"{written}, with {lie.argument} {kind} from {lie.low:g} to {lie.high:g}"


def _number(text: str, lie: _Lie) -> float | None:
    try:
        number = int(text) if lie.whole else float(text)
    except ValueError:
        return None
    return number if lie.low <= number <= lie.high else None

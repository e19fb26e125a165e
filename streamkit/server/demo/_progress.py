"""How far it is: one line for each kind of client, rewritten in place on a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final, TextIO

_UP: Final = "\x1b[{}A"
_CLEAR: Final = "\x1b[K"
_WIDTH: Final = 24


class Progress:
    """Counts what is done of what was planned.

    A terminal sees every count; anything else one line for each kind, when it is complete.
    """

    __slots__ = ("_done", "_live", "_out", "_planned", "_verb")

    def __init__(self, out: TextIO, title: str, planned: Mapping[str, int], verb: str) -> None:
        self._out = out
        self._planned = {name: count for name, count in planned.items() if count}
        self._done: Counter[str] = Counter()
        self._verb = verb
        self._live = out.isatty()
        self._write(f"{title}\n")
        if self._live:
            self._write("".join(self._line(name) for name in self._planned))

    def done(self, name: str) -> None:
        """One more of that kind."""
        self._done[name] += 1
        if self._live:
            lines = "".join(self._line(each) for each in self._planned)
            self._write(_UP.format(len(self._planned)) + lines)
        elif self._done[name] == self._planned[name]:
            self._write(self._line(name))

    def _line(self, name: str) -> str:
        done, planned = self._done[name], self._planned[name]
        width = min(planned, _WIDTH)
        full = done * width // planned
        bar = "●" * full + "·" * (width - full)
        end = f"{_CLEAR}\n" if self._live else "\n"
        return f"  {name:20} {bar:{_WIDTH}} {done}/{planned} {self._verb}{end}"

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()

    def __repr__(self) -> str:
        return f"<Progress {self._done.total()} of {sum(self._planned.values())}>"

"""Where the bytecodes of a request go, by layer: ``python -m tests.costs.where predict``.

The budgets say how many of ours there are; this says of all Python code, whose they are.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter as Tally
from pathlib import PurePath
from types import FrameType
from typing import Any, Final

from streamkit.testing import VirtualTimeLoop

from . import apps
from .counting import OURS, Counter
from .leaving import STAGES, cancels
from .scenarios import Scenario, predictions, requests, tokens

UNITS: Final = 64
SCENARIOS: Final[dict[str, tuple[Scenario, int]]] = {
    "predict": (predictions("Model"), UNITS),
    "coroutine": (requests(apps.coroutine_endpoint(apps.answer_at_once)), UNITS),
    "token": (tokens(apps.event_stream, apps.waited), UNITS),
    "cancel": (cancels(STAGES["decode"]), 4),
}


class WhereCounter(Counter):
    """Counts each bytecode of Python code for the layer that it belongs to."""

    def __init__(self) -> None:
        super().__init__()
        self.layers: Tally[str] = Tally()

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        if self._is_on_stage(frame.f_code):
            return None
        layer = _layer(frame.f_code.co_filename)
        frame.f_trace_opcodes, frame.f_trace_lines = True, False

        def count(frame: FrameType, event: str, arg: Any) -> Any:
            self.layers[layer] += event == "opcode"
            return count

        return count


def _layer(filename: str) -> str:
    """Ours by folder, others by package."""
    path = PurePath(filename)
    if filename.startswith(OURS):
        inside = path.relative_to(OURS).parts
        return "streamkit/" + "/".join(inside[:-1])
    if "site-packages" in path.parts:
        return path.parts[path.parts.index("site-packages") + 1]
    return path.parent.name if path.parent.name in {"asyncio", "json"} else "Python's library"


def where(name: str) -> Tally[str]:
    """Bytecodes of one unit of that scenario, by layer."""
    scenario, units = SCENARIOS[name]

    async def main() -> Tally[str]:
        await scenario(Counter(), 2 * units)  # fills caches
        once, twice = WhereCounter(), WhereCounter()
        await scenario(once, units)
        await scenario(twice, 2 * units)
        return Tally({k: v / units for k, v in (twice.layers - once.layers).items()})  # type: ignore[misc]

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main())


def main(names: list[str]) -> None:
    for name in names or SCENARIOS:
        layers = where(name)
        total = sum(layers.values())
        print(f"{name}: {total:,.0f} bytecodes")
        for layer, count in layers.most_common():
            if count / total >= 0.005:
                print(f"  {count / total:6.1%}  {count:8,.0f}  {layer}")


if __name__ == "__main__":
    main(sys.argv[1:])

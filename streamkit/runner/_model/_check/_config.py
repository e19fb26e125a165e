"""What a config.yaml asks for that nobody does here: said before somebody waits for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from streamkit.runner._model._defaults import DEFAULTS
from streamkit.runner._model._target import Target

from ._report import Code, Finding, Severity

# Keys → what to do by hand.
_BY_HAND: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (
        ("base_image", "build_commands", "requirements", "requirements_file", "system_packages"),
        "no image is built: what they name has to be installed where streamkit runs",
    ),
    (
        ("external_data", "model_cache", "training_checkpoints", "weights"),
        "nothing is downloaded: put the files in place before the model is loaded",
    ),
    (("bis_llm", "trt_llm"), "no engine is built from it: the model or an extension has to"),
    (("live_reload",), "restart streamkit to load changed code"),
)


def config_findings(target: Target) -> Iterator[Finding]:
    """Look at the config.yaml of a folder."""
    file = target.config_file
    if file is None:
        return
    raw = target.config.raw
    lines = file.read_text(errors="replace").splitlines()
    for keys, advice in _BY_HAND:
        set_keys = [key for key in keys if raw.get(key) != DEFAULTS[key]]
        if set_keys:
            yield _note(file, lines, set_keys[0], f"{', '.join(set_keys)}: {advice}")
    if _transport(raw) == "grpc":
        text = "runtime.transport.kind: gRPC is not served; the model answers over HTTP"
        yield _note(file, lines, "transport", text)


def _transport(raw: dict[str, Any]) -> object:
    return raw["runtime"]["transport"]["kind"]


def _note(file: Path, lines: Sequence[str], key: str, text: str) -> Finding:
    starts = (number for number, line in enumerate(lines, 1) if line.lstrip().startswith(f"{key}:"))
    return Finding(next(starts, 0), Severity.NOTE, Code.BY_HAND, text, file=file)

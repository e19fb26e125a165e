"""What is said of a model that did not load: its own traceback, without our frames around it."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType
from typing import Final

from streamkit.errors import ModelDefinitionError, ModelLoadFailed, TargetNotFound

# What stands between the user's code and whoever started it: ours, and Python's import.
_OUTER: Final = (str(Path(__file__).parents[2]), "<frozen importlib.")
# Models import these without naming them anywhere; the extra `truss` has the same.
IN_TRUSSS_IMAGE: Final = frozenset(
    {"aiofiles", "aiohttp", "fastapi", "joblib", "loguru", "numpy", "psutil", "requests"}
)
_TOLD: Final = (ModelDefinitionError, TargetNotFound)  # these say all there is to say


def load_failed(subject: str, step: str, error: BaseException) -> ModelLoadFailed:
    """Say which step of the load failed; the error becomes its cause."""
    if isinstance(error, _TOLD):
        text = str(error)
    elif isinstance(error, SystemExit):
        text = f"{subject}: its {step} called sys.exit({error.code!r})"
    else:
        said = f": {error}" if str(error) else ""
        text = f"{subject}: its {step} raised {type(error).__name__}{said}{_hint(error)}"
    failure = ModelLoadFailed(text)
    failure.__cause__ = error
    return failure


def _hint(error: BaseException) -> str:
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return ""
    if error.name in IN_TRUSSS_IMAGE:
        return f"; Truss's image brings {error.name} along, here it has to be installed"
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    folder = Path(frame.f_code.co_filename).parent
    if (folder / error.name).is_dir() or (folder / f"{error.name}.py").is_file():
        return f"; it is beside the file that wants it: import it as `.{error.name}`"
    return ""


def describe_failure(error: BaseException) -> str:
    """What to log: the message and, where the model's own code failed, its own traceback."""
    cause = error.__cause__ if isinstance(error, ModelLoadFailed) else error
    if cause is None or isinstance(cause, _TOLD):
        return str(error)
    lines = traceback.format_exception(type(cause), cause, _inner(cause.__traceback__))
    heading = [] if cause is error else [f"{error}\n"]
    return "".join([*heading, *lines]).rstrip()


def _inner(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OUTER):
        trace = trace.tb_next
    return trace

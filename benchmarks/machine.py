"""On what it was measured."""

from __future__ import annotations

import datetime as dt
import os
import platform
from importlib import metadata
from pathlib import Path

from benchmarks.environments import versions


def installed(*names: str) -> dict[str, str]:
    """The machine, and these packages as they are where this runs."""
    own = versions("asgi")
    about = {name: value for name, value in machine().items() if name not in own}
    return {**about, **{name: metadata.version(name) for name in names}}


def machine() -> dict[str, str]:
    """CPU, kernel, Python, and the packages that share one environment."""
    return {
        "CPU": f"{_cpu()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release().split('-')[0]}",
        "Python": platform.python_version(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        **versions("asgi"),
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()

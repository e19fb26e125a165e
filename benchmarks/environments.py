"""An environment for each requirements file, made once and made again when the file changes."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
REQUIREMENTS = Path(__file__).parent / "requirements"
FOLDER = Path(__file__).parent / ".envs"


class CannotInstall(Exception):
    """The message says why."""


def environment(name: str) -> Path:
    """Return the ``bin`` folder of that environment.

    Raises:
        CannotInstall: A package does not exist for this Python, or cannot be downloaded.
    """
    requirements = REQUIREMENTS / f"{name}.txt"
    folder = FOLDER / f"{name}-{sys.version_info.major}.{sys.version_info.minor}"
    stamp = folder / ".made-of"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        print(f"making {folder.relative_to(ROOT)} …", file=sys.stderr, flush=True)
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        # Ours last and everywhere: the peers' files stand beside it, and import nothing of it.
        _run(str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "-r", str(requirements))
        if "# with streamkit" in requirements.read_text():
            _run(str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "-e", str(ROOT))
        stamp.write_text(digest)
    return folder / "bin"


def versions(name: str) -> dict[str, str]:
    """What is pinned there."""
    lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise CannotInstall("; ".join(errors[:2]) or done.stderr[-300:].strip())

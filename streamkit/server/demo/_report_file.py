"""The file that a command of minutes writes at its end: refused at once where it cannot."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path


class CannotWrite(Exception):
    """A report could not be written after all; the message names it, and why."""


def report_file(text: str) -> Path:
    """A file that can be written, for argparse.

    Nothing is made or opened: what lies there stays as it is if there will be no report.
    """
    path = Path(text)
    if why := _why_not(path):
        raise argparse.ArgumentTypeError(f"cannot write {text!r}: {why}")
    return path


def _why_not(path: Path) -> str | None:
    try:
        if path.is_dir():
            return "it is a folder"
        if not path.parent.is_dir():
            return f"{path.parent} is no folder"
        writable = os.access(path if path.exists() else path.parent, os.W_OK)
    except OSError as error:  # a name that is too long
        return error.strerror or str(error)
    return None if writable else "it is not permitted"


def write_report(path: Path, report: str | object) -> None:
    """Write a text, or anything else as JSON.

    Raises:
        CannotWrite: The folder is gone meanwhile, the disk is full.
    """
    text = report if isinstance(report, str) else json.dumps(report, indent=2) + "\n"
    try:
        path.write_text(text)
    except OSError as error:
        raise CannotWrite(f"cannot write {path}: {error.strerror or error}") from None

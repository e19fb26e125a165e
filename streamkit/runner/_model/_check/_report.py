"""What a check found: the methods of a model, how a cancel reaches each, and what is wrong."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from streamkit.runner._model._shape import Kind, Takes


class Severity(StrEnum):
    """What a finding means for serving the model."""

    ERROR = "error"  # it would be refused
    WARNING = "warning"  # something of it cannot be cancelled, or fails on each call
    NOTE = "note"  # worth to know


class Code(StrEnum):
    """What kind of finding it is: stable names, with what they mean in docs/reference/check.md."""

    SYNTAX = "syntax"
    DEFINITION = "definition"
    CONSTRUCTOR = "constructor"
    DEAF_CALL = "deaf-call"
    DEAF_LOOP = "deaf-loop"
    THREAD_RUNS_ON = "thread-runs-on"
    TASK_RUNS_ON = "task-runs-on"
    BLOCKS_LOOP = "blocks-loop"
    SWALLOWS_CANCEL = "swallows-cancel"
    NOT_AWAITED = "not-awaited"
    STREAM_AND_POSTPROCESS = "stream-and-postprocess"
    FAILS_ON_CALL = "fails-on-call"
    DROPS_RESULT = "drops-result"
    OWN_RESPONSE = "own-response"
    READS_FILE = "reads-file"
    DEAF_FUNCTION = "deaf-function"
    BY_HAND = "by-hand"
    UNSEEN_ANNOTATION = "unseen-annotation"
    UNSEEN_BASE = "unseen-base"
    UNSEEN_CLASS = "unseen-class"
    UNSEEN_DECORATOR = "unseen-decorator"
    UNSEEN_METHOD = "unseen-method"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a report.

    Attributes:
        line: In the model's file; 0 where it is about none of its lines.
        code: Which kind of finding.
        method: The method that it is about; None: the class, or the file.
    """

    line: int
    severity: Severity
    code: Code
    text: str
    method: str | None = None
    file: Path | None = None  # another one than the model's


@dataclass(frozen=True, slots=True)
class MethodReport:
    """One method that there is; ``kind`` and ``takes`` are None where that cannot be told.

    Attributes:
        asks: Its code, or that of a helper of its own, names ``is_disconnected``.
        cancel: How a cancel reaches it.
    """

    name: str
    line: int
    kind: Kind | None
    takes: Takes | None
    asks: bool
    cancel: str


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of one model class without having imported it."""

    file: Path
    class_name: str
    line: int
    methods: tuple[MethodReport, ...] = ()
    payload: str = ""
    payload_needed: bool | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def loads(self) -> bool:
        """Whether ``streamkit serve`` would take it, as far as its text says."""
        return not any(finding.severity is Severity.ERROR for finding in self.findings)

    def count(self, severity: Severity) -> int:
        """How many findings of one severity there are."""
        return sum(finding.severity is severity for finding in self.findings)


def warning(node: ast.AST, code: Code, method: str, text: str) -> Finding:
    """Make a finding about a method, at a place in its code."""
    return _about(node, Severity.WARNING, code, method, text)


def note(node: ast.AST, code: Code, method: str, text: str) -> Finding:
    """The same, of what may be as it is."""
    return _about(node, Severity.NOTE, code, method, text)


def _about(node: ast.AST, severity: Severity, code: Code, method: str, text: str) -> Finding:
    line: int = getattr(node, "lineno", 0)
    return Finding(line, severity, code, f"{method}: {text}", method)


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Each once, by file and line."""
    return tuple(sorted(dict.fromkeys(findings), key=lambda one: (str(one.file), one.line)))

"""Says of a model class, from its text alone, what it takes and how a cancel will reach it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from streamkit.errors import TargetNotFound
from streamkit.runner._model._shape import KNOWN, ROUTES, STAGES, Shape, Takes, problems
from streamkit.runner._model._target import find_target

from ._class import Member, ModelClass, kind_of_member, read_class, shape_of
from ._config import config_findings
from ._image import image_findings
from ._names import Names
from ._on_loop import on_loop_hazards
from ._on_threads import thread_hazards
from ._paths import ASKS_CLIENT, line_that_asks, running
from ._reach import reach
from ._report import Code, Finding, MethodReport, Report, Severity, in_order
from ._stages import stage_findings
from ._tasks import task_hazards

__all__ = ["Code", "Finding", "MethodReport", "Report", "Severity", "check", "check_source"]

_CALLED_FOR_REQUESTS: Final = (*STAGES, *ROUTES, "websocket")
_APPS: Final = frozenset({"fastapi.FastAPI()", "starlette.applications.Starlette()"})
_SAYS_NOTHING: Final = ("", "Any", "None", "object", "typing.Any")


def check(spec: str, extensions: Path | None = None) -> Report:
    """Check what ``spec`` names, as ``streamkit serve`` would find it; imports nothing of it.

    ``extensions`` is a folder of more of them, which give the constructor arguments.

    Raises:
        TargetNotFound: It names nothing, or nothing that has a text.
        ModelLoadFailed: The folder's config.yaml cannot be used.
    """
    target = find_target(spec, extensions)
    if target.source is None:
        raise TargetNotFound(f"{spec!r}: {target} has no Python source that could be checked")
    source, given = target.source.read_bytes(), target.extensions
    report = check_source(target.source, source, target.class_name, given)
    found = (*report.findings, *image_findings(target, source), *config_findings(target))
    return replace(report, findings=found)


def check_source(
    file: Path, source: bytes, class_name: str, extensions: Collection[str] = ()
) -> Report:
    """Check one file; nothing of it is imported or executed.

    Args:
        file: Its path, for the report alone.
        source: Its content.
        class_name: The model class in it.
        extensions: Names of those that give the constructor arguments.
    """
    try:
        return _checked(file, source, class_name, extensions)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 0
        text = _syntax_error(error)
    except (RecursionError, MemoryError):
        line, text = 0, "expressions are nested deeper in it than Python reads"
    wrong = Finding(line, Severity.ERROR, Code.SYNTAX, text)
    return Report(file, class_name, line, findings=(wrong,))


def _syntax_error(error: Exception) -> str:
    if not isinstance(error, SyntaxError):  # a null byte, before Python 3.12
        return f"syntax error: {error}"
    version = ".".join(map(str, sys.version_info[:2]))
    line = (error.text or "").strip()
    where = f" in `{line:.80}`" if line else ""
    return f"syntax error{where}: {error.msg} (read as Python {version})"


def _checked(file: Path, source: bytes, class_name: str, extensions: Collection[str]) -> Report:
    names = Names(ast.parse(source))
    model = read_class(names, class_name)
    if model is None:
        return Report(file, class_name, 0, findings=(_no_class(names, class_name),))
    return _report(file, model, extensions)


def _no_class(names: Names, class_name: str) -> Finding:
    if names.path(ast.Name(class_name)) in _APPS:
        text = f"{class_name} is an ASGI app and no model class: run it as it is, with uvicorn"
        return Finding(0, Severity.ERROR, Code.DEFINITION, text)
    text = f"class {class_name} is made where this check does not look: check the file it is in"
    return Finding(0, Severity.NOTE, Code.UNSEEN_CLASS, text)


def _report(file: Path, model: ModelClass, extensions: Collection[str]) -> Report:
    shapes: dict[str, Shape] = {}
    findings: list[Finding] = []
    for name, member in model.known.items():
        shapes[name], guessed = shape_of(model, member)
        findings += _unseen(name, member, guessed)
    findings += _unread(model)
    findings += _refusals(model, shapes)
    findings += stage_findings(model, shapes, extensions)
    for name, member in model.members.items():
        if name in (*_CALLED_FOR_REQUESTS, "load"):
            for step in running(model, member):
                findings += on_loop_hazards(model, name, step)
        if name in _CALLED_FOR_REQUESTS:
            findings += thread_hazards(model, member)
            findings += task_hazards(model, member)
    payload, needed = _payload(model, shapes)
    return Report(
        file,
        model.node.name,
        model.node.lineno,
        methods=tuple(_methods(model, shapes)),
        payload=payload,
        payload_needed=needed,
        findings=in_order(findings),
    )


def _methods(model: ModelClass, shapes: dict[str, Shape]) -> Iterator[MethodReport]:
    for name in ("load", *KNOWN):
        member = model.members.get(name)
        if member is None:
            continue
        takes = shapes[name].takes if name in shapes and member.callee else None
        yield MethodReport(
            name,
            member.line,
            kind_of_member(member),
            takes,
            asks=line_that_asks(model, member, ASKS_CLIENT) is not None,
            cancel=reach(model, member),
        )


def _refusals(model: ModelClass, shapes: dict[str, Shape]) -> Iterator[Finding]:
    for problem in problems(model.node.name, shapes):
        if problem.method is None and (model.foreign or model.on_demand):
            continue  # what this check cannot read may have it
        line = model.members[problem.method].line if problem.method else model.node.lineno
        yield Finding(line, Severity.ERROR, Code.DEFINITION, problem.text, problem.method)


def _unseen(name: str, member: Member, guessed: ast.expr | None) -> Iterator[Finding]:
    if guessed is not None:
        text = (
            f"{name}: taken for a request, since it has to be one: `{ast.unparse(guessed)}` comes "
            "from where this check does not look"
        )
        yield Finding(guessed.lineno, Severity.NOTE, Code.UNSEEN_ANNOTATION, text, name)
    if member.callee is None and not member.oddity:
        text = f"{name}: made where this check does not look; taken for a method with inputs"
        yield Finding(member.line, Severity.NOTE, Code.UNSEEN_METHOD, text, name)
    for decorator in member.callee.unsure if member.callee else ():
        text = (
            f"{name}: taken as if `@{decorator}` kept its kind and used functools.wraps; this "
            "check does not look there"
        )
        yield Finding(member.line, Severity.NOTE, Code.UNSEEN_DECORATOR, text, name)


def _unread(model: ModelClass) -> Iterator[Finding]:
    for base in model.foreign:
        text = (
            f"what {model.node.name} inherits from `{ast.unparse(base)}` is not seen by this check"
        )
        yield Finding(base.lineno, Severity.NOTE, Code.UNSEEN_BASE, text)
    for member in model.on_demand:
        text = f"what {model.node.name}.{member.name} gives under other names is not seen"
        yield Finding(member.line, Severity.NOTE, Code.UNSEEN_METHOD, text)


def _payload(model: ModelClass, shapes: dict[str, Shape]) -> tuple[str, bool | None]:
    """Whether the body is parsed for the stages; the other methods have it each on its own."""
    first = next((name for name in ("preprocess", "predict") if name in shapes), None)
    if first is None:
        return "", None
    takes, line = shapes[first].takes, model.members[first].line
    if takes is None or not model.members[first].callee:
        return "cannot be told", None
    if takes in (Takes.INPUTS, Takes.BOTH):
        annotation = shapes[first].parameters[0].annotation
        validated = _validated(model, annotation) if annotation not in _SAYS_NOTHING else ""
        return f"parsed{validated}, for {first} (line {line})", True
    return f"not parsed: {first} (line {line}) takes {takes}", False


def _validated(model: ModelClass, annotation: str) -> str:
    """A class that is made elsewhere (an array, a tensor) may be none that pydantic knows."""
    known = all(
        model.names.is_known(node)
        for node in ast.walk(ast.parse(annotation, mode="eval"))
        if isinstance(node, ast.Name | ast.Attribute)
    )
    return f" and validated as `{annotation}`" + ("" if known else ", if pydantic can do that")

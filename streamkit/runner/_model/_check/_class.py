"""A model class as its text has it: its methods, also those of its bases, and what they take."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from streamkit.runner._model._shape import KNOWN, Kind, Parameter, Shape, no_self, not_a_function

from ._callee import CANCELLABLE, Callee, callee_of, decorated, own_nodes, parameters
from ._names import CERTAIN, POSSIBLE, Names, Symbol, assigned, statements

_LITERALS: Final = (ast.Constant, ast.Dict, ast.JoinedStr, ast.List, ast.Set, ast.Tuple)
_UNSEEN: Final = (Parameter("…"),)  # taken for a method with inputs
_ON_DEMAND: Final = ("__getattr__", "__getattribute__")
_KNOWN_BASES: Final = ("abc.", "builtins.", "typing.", "typing_extensions.")


@dataclass(frozen=True, slots=True)
class Member:
    """One attribute of the class; without callee and oddity, made where this check cannot look."""

    name: str
    line: int
    owner: ast.ClassDef
    callee: Callee | None = None
    oddity: str = ""


@dataclass(frozen=True, slots=True)
class ModelClass:
    """A class and what it inherits in its own file; ``foreign`` are its bases from elsewhere."""

    names: Names
    node: ast.ClassDef
    members: Mapping[str, Member]
    foreign: tuple[ast.expr, ...]

    @property
    def known(self) -> dict[str, Member]:
        """The methods that the runner calls, in its order."""
        return {name: self.members[name] for name in KNOWN if name in self.members}

    @property
    def on_demand(self) -> list[Member]:
        """What makes attributes when they are asked for: any name may be there."""
        return [self.members[name] for name in _ON_DEMAND if name in self.members]


def read_class(names: Names, class_name: str) -> ModelClass | None:
    """Read a class of a file; None if it is not defined there."""
    node = names.classes.get(names.path(ast.Name(class_name)).removeprefix("."))
    if node is None:
        return None
    lineage = list(_lineage(names, node))
    members: dict[str, Member] = {}
    for owner in reversed(lineage):
        members |= _members(names, owner, members)
    members |= _made_at_start(names, node, members)
    foreign = tuple(
        base
        for owner in lineage
        for base in owner.bases
        if _class_of(names, base) is None and not _is_harmless(names, base)
    )
    return ModelClass(names, node, members, foreign)


def _lineage(names: Names, node: ast.ClassDef) -> Iterator[ast.ClassDef]:
    """The class and its bases in this file, nearest first."""
    todo, seen = [node], set[str]()
    while todo:
        owner = todo.pop(0)
        if owner.name in seen:
            continue
        seen.add(owner.name)
        yield owner
        todo += [base for each in owner.bases if (base := _class_of(names, each))]


def _class_of(names: Names, base: ast.expr) -> ast.ClassDef | None:
    symbol = names.symbol(base)
    return names.classes.get(symbol.path.removeprefix(".")) if isinstance(symbol, Symbol) else None


def _is_harmless(names: Names, base: ast.expr) -> bool:
    symbol = names.symbol(base)
    return not isinstance(symbol, Symbol) or symbol.path.startswith(_KNOWN_BASES)


# -- what gives a class its attributes -------------------------------------------------------------


def _members(
    names: Names, owner: ast.ClassDef, inherited: Mapping[str, Member]
) -> dict[str, Member]:
    found: dict[str, Member] = {}
    for statement in statements(owner.body):
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            callee = callee_of(statement, names)
            found[statement.name] = Member(statement.name, statement.lineno, owner, callee)
        for name, value in assigned(statement):
            line = statement.lineno
            found[name] = _assigned(names, {**inherited, **found}, value, Member(name, line, owner))
    return found


def _made_at_start(
    names: Names, node: ast.ClassDef, members: Mapping[str, Member]
) -> dict[str, Member]:
    """What the constructor puts onto the object itself, under the name of a method."""
    constructor = members.get("__init__")
    if constructor is None or constructor.callee is None:
        return {}
    found: dict[str, Member] = {}
    for statement in own_nodes(constructor.callee.node):
        match statement:
            case ast.Assign(
                targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)], value=value
            ) if name in KNOWN:
                made = Member(name, statement.lineno, node)
                made = _assigned(names, members, value, made)
                # Only what is found on the class is bound when it is asked for.
                if made.callee and not isinstance(value, ast.Attribute):
                    made = replace(made, callee=replace(made.callee, bound=False))
                found[name] = made
            case _:
                pass
    return found


def _assigned(
    names: Names, members: Mapping[str, Member], value: ast.expr, member: Member
) -> Member:
    if isinstance(value, _LITERALS):
        return replace(member, oddity=not_a_function(ast.unparse(value)))
    return replace(member, callee=_callee_of(names, members, value))


def _callee_of(names: Names, members: Mapping[str, Member], value: ast.expr) -> Callee | None:
    match value:
        case ast.Lambda():
            return callee_of(value, names)
        case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="self"), attr=name):
            if name in members:
                return members[name].callee
            function = names.functions.get(name)
            return callee_of(function, names) if function else None
        case ast.Call(func=decorator, args=[ast.expr() as inner]) if _is_ours(names, decorator):
            callee = _callee_of(names, members, inner)
            return callee and decorated(callee, decorator, names)
        case _:
            return None


def _is_ours(names: Names, decorator: ast.expr) -> bool:
    plain = decorator.func if isinstance(decorator, ast.Call) else decorator
    return names.path(plain) in CANCELLABLE


# -- what a method looks like to the rules ---------------------------------------------------------


def shape_of(model: ModelClass, member: Member) -> tuple[Shape, ast.expr | None]:
    """Return the shape, and the annotation that was taken for a request without knowing it."""
    callee = member.callee
    if member.oddity:
        return Shape(member.name, oddity=member.oddity), None
    if callee is None:
        return Shape(member.name, _UNSEEN), None
    arguments = callee.arguments
    if callee.bound and not (arguments.posonlyargs or arguments.args or arguments.vararg):
        return Shape(member.name, oddity=no_self(member.name)), None
    namespace = model.names.namespace(member.owner)
    written = parameters(callee)
    found = [_parameter(name, annotation, namespace) for name, annotation in written]
    guessed = None
    if len(found) == 2 and not (found[0].is_request or found[1].is_request):
        guessed = written[1][1]
        if guessed is None or not POSSIBLE.judge(guessed, namespace).is_request:
            guessed = None
        else:
            found[1] = replace(found[1], is_request=True)
    return Shape(member.name, tuple(found), callee.kind), guessed


def _parameter(
    name: str, annotation: ast.expr | None, namespace: Mapping[str, object]
) -> Parameter:
    if annotation is None:
        return Parameter(name)
    verdict = CERTAIN.judge(annotation, namespace)
    return Parameter(name, verdict.is_request, ast.unparse(annotation))


def kind_of_member(member: Member) -> Kind | None:
    """How calling it behaves; None where that cannot be told."""
    return member.callee.kind if member.callee else None

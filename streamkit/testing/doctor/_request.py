"""Whether request and answer get through as they were sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from streamkit.testing._faults import Seen
from streamkit.testing.chaos._target import Target

from ._books import Books, Entry
from ._findings import Finding, shown
from ._hear import Heard, hear
from ._patient import SHORT, Patient

_NAME: Final = "request"
_BEYOND_ASCII: Final = 1  # the prompt with that number


@dataclass(frozen=True, slots=True, kw_only=True)
class _Exchange:
    """One request and its answer, and what the server's books say of it."""

    heard: Heard
    text: str
    sent_id: str
    entry: Entry | None


async def untouched(patient: Patient) -> Finding:
    """Ask the same with and without the proxy; compare what came back, and what the books say."""
    books = patient.witness if isinstance(patient.witness, Books) else None
    ours = await _exchange(patient.through, books)
    if not ours.heard.answered:
        evidence = f"a request beyond ASCII: {ours.heard.fault}"
        return Finding(name=_NAME, state="fault", evidence=evidence)
    if books is not None and ours.entry is None:
        books.renamed = True  # from now on it is looked for by its time
        its = shown(ours.heard.header("x-request-id") or "none")
        evidence = f"it came to the server with another x-request-id than it was sent with ({its})"
        return Finding(name=_NAME, state="warning", evidence=evidence, remedy="request id")
    told = ["it came with its id"] if books is not None else []
    if patient.direct is not None:
        theirs = await _exchange(patient.direct, books)
        again = await _exchange(patient.direct, books)
        if difference := _difference(ours, theirs, again):
            return Finding(name=_NAME, state="warning", evidence=difference)
        told.append("prompt and answer are as without the proxy")
    evidence = ", ".join(told) or "it is answered; --backend compares"
    return Finding(name=_NAME, state="ok", evidence=evidence)


async def _exchange(target: Target, books: Books | None) -> _Exchange:
    ask, sent_id = target.ask(_BEYOND_ASCII, SHORT), ""
    if books is not None:
        ask, sent_id = books.named(ask)
    heard = await hear(ask)
    entry = await books.entry(sent_id, heard.sent_at or heard.began_at) if books else None
    seen = Seen(fault="stay", began_at=heard.began_at)
    seen.take(bytes(heard.body), heard.ended_at)
    return _Exchange(heard=heard, text=target.text_of(seen), sent_id=sent_id, entry=entry)


def _difference(ours: _Exchange, theirs: _Exchange, again: _Exchange) -> str:
    """What the proxy changed; empty: nothing."""
    kind = "content-type"
    pairs: list[tuple[str, object, object]] = [
        (kind, ours.heard.header(kind), theirs.heard.header(kind))
    ]
    if ours.entry and theirs.entry:
        pairs.append(
            ("its prompt, in tokens,", ours.entry.prompt_tokens, theirs.entry.prompt_tokens)
        )
    if theirs.text == again.text:  # else the same question has many answers here
        pairs.append(("the answer", ours.text, theirs.text))
    different = [
        f"{what} is {mine!r}, and {its!r} without the proxy"
        for what, mine, its in pairs
        if mine != its
    ]
    return "; ".join(different)

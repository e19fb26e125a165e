"""What a proxy does to a connection on which nothing is said, and to one that has heartbeats."""

from __future__ import annotations

from typing import Final

from streamkit.testing._faults import Ask

from ._endpoint import unary
from ._findings import Finding, span
from ._hear import Heard, hear
from ._patient import Patient

_ENOUGH: Final = 0.8  # of the silence that was asked for
_WITH_IT: Final = 0.02  # seconds before the first event: a heartbeat that was held back for it


async def idle(patient: Patient) -> Finding:
    """A client that waits for an answer in one piece, for long."""
    name, seconds = "silence", patient.limits.idle
    ask = unary(patient.through.ask(0, patient.tokens_for(seconds)))
    if ask is None:
        evidence = "not known how to ask for an answer in one piece: the request has no `stream`"
        return Finding(name=name, state="unknown", evidence=evidence)
    heard = await hear(_patiently(ask, seconds))
    status = heard.head.status if heard.head is not None else None
    figures = {"seconds": round(heard.seconds, 3), "status": status}
    if not heard.answered:
        evidence = f"it was cut after {heard.seconds:.1f} s: {heard.fault}"
        return Finding(name=name, state="fault", evidence=evidence, remedy="idle", figures=figures)
    if heard.seconds < seconds * _ENOUGH:
        evidence = (
            f"{heard.seconds:.1f} s of it were survived, then the answer was there; for "
            f"{seconds:g} s ask for more than {patient.limits.tokens} tokens with --max-tokens, or "
            "put a slower server behind the proxy"
        )
        return Finding(name=name, state="unknown", evidence=evidence, figures=figures)
    evidence = f"{heard.seconds:.1f} s without a byte were survived"
    return Finding(name=name, state="ok", evidence=evidence, figures=figures)


async def heartbeats(patient: Patient) -> Finding:
    """A stream in which only heartbeats come, for long."""
    name, seconds = "heartbeats", patient.limits.idle
    silent = await patient.silent(seconds)
    if silent is None or silent[1] < seconds * _ENOUGH:
        had = f", only for {span(silent[1])}" if silent else ""
        evidence = (
            f"no prompt keeps this server silent for {seconds:g} s{had}; to see it, put "
            "`streamkit serve --engine-option prefill_tokens_per_step=1` behind the proxy"
        )
        return Finding(name=name, state="unknown", evidence=evidence)
    heard = await hear(_patiently(silent[0], seconds))
    return _judge(name, heard)


def _judge(name: str, heard: Heard) -> Finding:
    beats = [round(each, 3) for each in heard.comments]
    figures = {"seconds": round(heard.seconds, 3), "heartbeats": beats[:100]}
    if not heard.answered:
        evidence = f"the stream was cut after {heard.seconds:.1f} s and {len(beats)} heartbeats"
        remedy = "heartbeat"
        evidence = f"{evidence}: {heard.fault}"
        return Finding(name=name, state="fault", evidence=evidence, remedy=remedy, figures=figures)
    if not beats:
        evidence = f"none came in {heard.seconds:.1f} s: the server sends none, or later ones"
        return Finding(name=name, state="unknown", evidence=evidence, figures=figures)
    if beats[0] > (heard.first_event_after or 0.0) - _WITH_IT:
        evidence = f"{len(beats)} came, but only with the answer, after {beats[0]:.1f} s"
        return Finding(
            name=name, state="fault", evidence=evidence, remedy="buffering", figures=figures
        )
    times = ", ".join(f"{each:.1f}" for each in beats[:4])
    more = ", …" if len(beats) > 4 else ""
    evidence = f"{len(beats)} came in {heard.seconds:.1f} s of silence, after {times}{more} s"
    return Finding(name=name, state="ok", evidence=evidence, figures=figures)


def _patiently(ask: Ask, seconds: float) -> Ask:
    """Wait for longer than the silence lasts: it is the proxy that shall give up first."""
    return Ask(
        url=ask.url,
        method=ask.method,
        json=ask.json,
        headers=ask.headers,
        timeout=seconds * 2 + ask.timeout,
        tls=ask.tls,
    )

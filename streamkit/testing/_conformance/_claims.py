"""Each capability that an engine claims, held against what was seen: more, less, or not to see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple, TypeAlias

import anyio

from streamkit._core import now
from streamkit.engines import prove_stopped

from ._bench import Bench, leave
from ._reading import Reader
from ._trial import NO_READER, PREFILL_AT, Attempt

TELLING: Final = 3.0  # what a cancel in prefill saves must be so much longer than a step
FREEZE_STEPS: Final = 20


class Verdict(NamedTuple):
    """What became of a claim.

    Attributes:
        kind: ``"seen"``, ``"unseen"``, ``"less"`` (it claims less than is true) or ``"broken"``.
        what: In words.
    """

    kind: str
    what: str


Attempts: TypeAlias = Sequence[Attempt]


def judge_claims(bench: Bench, attempts: Attempts) -> None:
    """Put every claim that the trials show into the report."""
    for name, look in _LOOKS.items():
        enter(bench, name, look(bench, attempts))


def enter(bench: Bench, name: str, verdict: Verdict) -> None:
    """Put one verdict into the report."""
    report = bench.report
    kind, what = verdict
    if kind == "broken":
        report.find(name, what)
    elif kind == "unseen":
        report.unverified[name] = what
    elif report.broke(name):
        return
    else:
        report.verified[name] = what
        if kind == "less":
            report.told.append(f"{name}: {what}")


def _in_phase(attempts: Attempts, phase: str) -> list[Attempt]:
    return [each for each in attempts if each.trial.phase == phase and not each.finished]


def _cancel_queued(bench: Bench, attempts: Attempts) -> Verdict:
    claimed = bench.engine.capabilities.cancel_queued
    tried = [each for each in _in_phase(attempts, "queued") if each.outcome is not None]
    left = sum(each.left_queue for each in tried)
    if not tried:
        return Verdict("unseen", "no trial left in the queue")
    if bench.statistics() is None:
        return Verdict("unseen", "it has no books that could say whether a request waits")
    if not claimed:
        kind, what = ("less", "claims False, and") if left == len(tried) else ("seen", "False;")
        return Verdict(kind, f"{what} {left} of {len(tried)} left the queue while others ran")
    if left < len(tried):
        return Verdict("broken", f"only {left} of {len(tried)} left the queue while others ran")
    return Verdict("seen", f"all {left} left the queue while others ran")


def _cancel_prefill(bench: Bench, attempts: Attempts) -> Verdict:
    claimed, pace = bench.engine.capabilities.cancel_prefill, bench.pace
    rest = (1 - PREFILL_AT) * pace.long_first_token
    stops = [each.trial.stopped for each in _in_phase(attempts, "prefill")]
    known = [seconds for seconds in stops if seconds is not None]
    # The median: one that a busy machine delayed is held against the bound, not against the claim.
    took = median(known) if known else None
    if took is None or rest < TELLING * max(pace.step, pace.first_token):
        return Verdict(
            "unseen",
            f"the prefill of the long prompt takes {pace.long_first_token:.3g} s and a step "
            f"{pace.step:.3g} s: a longer prompt would tell",
        )
    what = f"stopped after {took:.3g} s, of a rest of {rest:.3g} s"
    inside = took < rest / 2
    if claimed == "none":
        return Verdict("less" if inside else "seen", f"claims 'none'; {what}")
    return Verdict("seen" if inside else "broken", f"claims {claimed!r}; {what}")


def _extra_steps(bench: Bench, attempts: Attempts) -> Verdict:
    claimed = bench.engine.capabilities.extra_steps
    tried = [each for each in attempts if each.trial.phase not in NO_READER]
    made = [each.trial.tokens_after for each in tried if each.trial.tokens_after is not None]
    if not made:
        return Verdict("unseen", "neither its books nor its reports say what it made")
    # Only now: a speculative engine may make its longest step late.
    longest = max(bench.pace.tokens_per_step, *(each.reader.largest for each in tried))
    what = f"claims {claimed} of at most {longest} tokens; made {max(made)} after a cancel at most"
    if claimed is None:
        return Verdict("less", what)
    for each in tried:
        if (each.trial.tokens_after or 0) > claimed * longest:
            bench.report.find("extra_steps", what, each.trial)
    return Verdict("less" if max(made) == 0 < claimed else "seen", what)


def _answers_cancel(bench: Bench, attempts: Attempts) -> Verdict:
    claimed = bench.engine.capabilities.answers_cancel
    told = [each for each in attempts if each.trial.told and not each.finished]
    answered = sum(each.trial.answered for each in told)
    what = f"claims {claimed!r}; answered {answered} of {len(told)}"
    less = claimed != "always" and answered == len(told) > 0
    return Verdict("less" if less else "seen", what)


def _proof(bench: Bench, attempts: Attempts) -> Verdict:
    claimed = bench.engine.capabilities.proof
    proofs = [each.trial.proof for each in attempts if each.trial.told and each.trial.proof]
    if not proofs:
        return Verdict("unseen", "no trial had to tell it to stop")
    least = min(proofs)
    what = f"claims {claimed.word}; gave {least.word} at least"
    return Verdict("less" if least > claimed else "seen", what)


def _early(bench: Bench, attempts: Attempts) -> Verdict:
    early = [each for each in attempts if each.trial.phase.startswith("turn ")]
    what = f"{len(early)} early cancels took effect; whether the engine or its adapter saw to it"
    return Verdict("unseen", f"{what} does not show from outside")


def _thread_safe(bench: Bench, attempts: Attempts) -> Verdict:
    tried = sum(each.trial.way == "thread" for each in attempts)
    return Verdict("unseen", f"{tried} cancels in threads worked; who aborts does not show")


Look: TypeAlias = Callable[[Bench, Attempts], Verdict]
_LOOKS: Final[Mapping[str, Look]] = {
    "cancel_queued": _cancel_queued,
    "cancel_prefill": _cancel_prefill,
    "extra_steps": _extra_steps,
    "answers_cancel": _answers_cancel,
    "proof": _proof,
    "early_cancel_safe": _early,
    "thread_safe_cancel": _thread_safe,
}


# -- claims that need an experiment of their own -------------------------------------------------


async def check_fence(bench: Bench) -> Verdict:
    """A fence comes back, on an idle engine and right behind an abort."""
    claimed = bench.engine.capabilities.fence
    fence = getattr(bench.engine, "fence", None)
    if not claimed or fence is None:
        return Verdict("unseen", f"claims {claimed}; it has no fence() that could be asked")
    reader = Reader(bench.open(), pause_at=1)
    await reader.read()
    leave(reader.generation, "a fence follows")
    began = now()
    try:
        with anyio.move_on_after(bench.plan.bound) as limit:
            await fence()
    except Exception as error:  # noqa: BLE001 - is reported
        return Verdict("broken", f"it raised {error!r}")
    if limit.cancelled_caught:
        return Verdict("broken", f"it did not come back within {bench.plan.bound:.3g} s")
    return Verdict("seen", f"came back in {1000 * (now() - began):.1f} ms behind an abort")


async def check_observes(bench: Bench) -> Verdict:
    """The books move when the engine works: blind ones are always empty."""
    claimed, books = bench.engine.capabilities.observes, bench.engine.statistics()
    if books is None:
        return Verdict(
            "broken" if claimed else "seen",
            f"claims {claimed}, and statistics() is None",
        )
    async with bench.occupied(1):
        busy = bench.engine.statistics()
    assert busy is not None
    moves = busy.running > books.running and busy.tokens > books.tokens
    what = f"running {books.running} → {busy.running}, tokens {books.tokens} → {busy.tokens}"
    if not claimed:
        return Verdict("less" if moves else "seen", f"claims False; {what}")
    return Verdict("seen" if moves else "broken", what)


async def check_backpressure(bench: Bench) -> Verdict:
    """A reader that does not read makes the engine wait, or not."""
    claimed = bench.engine.capabilities.backpressure
    before = bench.tokens()
    if before is None:
        return Verdict("unseen", "its books do not say what it makes")
    reader = Reader(bench.open(), pause_at=1)
    await reader.read()
    stopped_at = await _wait_frozen(bench) - before
    leave(reader.generation, "it was not read")
    if reader.generation is not None:
        await prove_stopped(reader.generation, bench.engine)
    waits = stopped_at < bench.plan.answer_tokens
    what = f"claims {claimed}; made {stopped_at} of {bench.plan.answer_tokens} tokens unread"
    if claimed:
        return Verdict("seen" if waits else "broken", what)
    return Verdict("less" if waits else "seen", what)


async def _wait_frozen(bench: Bench) -> int:
    """Tokens that it has made when it makes no more."""
    made = -1
    with anyio.move_on_after(bench.plan.patience):
        while made != (latest := bench.tokens() or 0):
            made = latest
            await anyio.sleep(FREEZE_STEPS * bench.pace.step)
    return made


async def check_kill(bench: Bench) -> Verdict:
    """Force ends what runs, where there is force."""
    claimed = bench.engine.capabilities.kill
    reader = Reader(bench.open(), pause_at=1)
    await reader.read()
    generation = reader.generation
    assert generation is not None
    leave(generation, "to be killed")
    killed = await generation.kill()
    report = await prove_stopped(generation, bench.engine)
    what = f"claims {claimed}; kill() returned {killed}, outcome {report.outcome}"
    if claimed:
        return Verdict("seen" if killed and report.stopped else "broken", what)
    return Verdict("less" if killed else "seen", what)

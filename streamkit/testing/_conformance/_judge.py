"""What a trial has to show, rule by rule; what it does not show is a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from streamkit.engines import Outcome, Proof

from ._trial import NO_READER, Attempt

Seen: TypeAlias = tuple[str, str]
"""The claim that was broken, and what was seen."""


def judge(attempt: Attempt) -> None:
    """Put the trial and its findings into the report."""
    bench, trial = attempt.bench, attempt.trial
    report = bench.report
    report.trials.append(trial)
    failure = bench.engine.failure
    rules = _RULES if failure is None else ()
    if failure is not None:
        report.find("alive", f"it died: {failure!r}", trial)
    for rule in rules:
        for claim, seen in rule(attempt):
            report.find(claim, seen, trial)
    attempt.reader.generation = None


def stop_bound(attempt: Attempt) -> float:
    """Seconds in which it has to stop."""
    bench = attempt.bench
    uncut = bench.engine.capabilities.cancel_prefill == "none"
    early = attempt.trial.phase == "prefill"
    return bench.plan.bound + (bench.pace.long_first_token if uncut and early else 0.0)


def _loop_runs(attempt: Attempt) -> Iterator[Seen]:
    longest, limit = attempt.loop.longest, attempt.bench.plan.block_limit
    if longest >= limit:
        yield "loop", f"the event loop stood still for {longest:.3g} s, the limit is {limit:.3g} s"


def _reader_ends(attempt: Attempt) -> Iterator[Seen]:
    reader, trial, plan = attempt.reader, attempt.trial, attempt.bench.plan
    if trial.phase == "after the end" or trial.way == "drop":
        return
    if reader.ended_at is None:
        yield "reader", f"its iterator had not ended after {plan.patience:.3g} s"
    elif trial.reader_ended is not None and trial.reader_ended > plan.wake_bound:
        yield "reader", f"its iterator ended only {trial.reader_ended:.3g} s after the cancel"
    if reader.error is not None:
        yield "reader", f"its iterator raised {reader.error!r} instead of ending"
    if reader.late and not attempt.finished:  # else it reads what was there
        yield "reader", f"it got {reader.late} tokens after the cancel"


def _leaving_never_raises(attempt: Attempt) -> Iterator[Seen]:
    if attempt.leave_error is not None:
        yield "cancel", f"it raised {attempt.leave_error!r}"


def _cancel_says_who_was_first(attempt: Attempt) -> Iterator[Seen]:
    taken = attempt.taken
    ended = attempt.trial.phase == "after the end" or attempt.finished
    expected = 0 if ended else 1
    if taken and sum(taken) != expected:
        yield "cancel", f"cancel() returned {taken}, and {expected} of them should be True"


def _the_end_stays(attempt: Attempt) -> Iterator[Seen]:
    outcome = attempt.outcome
    if attempt.trial.phase != "after the end" or outcome is None:
        return
    generation = attempt.reader.generation
    if outcome.outcome is not Outcome.FINISHED:
        yield "books", f"a whole answer ended as {outcome.outcome}"
    if generation is not None and generation.cancellation is not None:
        yield "books", "a generation that had ended was cancelled"


def _nothing_begins(attempt: Attempt) -> Iterator[Seen]:
    if attempt.trial.phase == "new" and (attempt.trial.told or attempt.trial.tokens_after):
        yield "stop", "what was cancelled before it was read was submitted all the same"


def _it_stops(attempt: Attempt) -> Iterator[Seen]:
    trial, outcome = attempt.trial, attempt.outcome
    if trial.phase in NO_READER or attempt.finished:
        return
    bound = stop_bound(attempt)
    named = "" if outcome is None or outcome.misbehaviour is None else f", {outcome.misbehaviour}"
    if trial.stopped is None:
        yield "stop", f"nothing proved that it stopped{named}"
    elif trial.stopped > bound:
        yield "stop", f"stopped {trial.stopped:.3g} s after the cancel, bound {bound:.3g} s{named}"
    elif named and outcome is not None and outcome.misbehaviour != "silent":
        yield "stop", f"stopped in time, but was caught{named}"


def _it_computes_no_more(attempt: Attempt) -> Iterator[Seen]:
    if attempt.frozen:
        yield "stop", f"made {attempt.frozen} tokens in ten steps when all had been ended"


def _the_abort_works(attempt: Attempt) -> Iterator[Seen]:
    if attempt.outcome is not None and attempt.outcome.error is not None:
        yield "abort", f"the abort raised {attempt.outcome.error!r}"


def _the_proof_is_the_claimed_one(attempt: Attempt) -> Iterator[Seen]:
    trial, claimed = attempt.trial, attempt.bench.engine.capabilities.proof
    if trial.told and not attempt.finished and (trial.proof or Proof.SENT) < claimed:
        seen = "none" if trial.proof is None else trial.proof.word
        yield "proof", f"claims {claimed.word}, gave {seen}"


def _it_answers(attempt: Attempt) -> Iterator[Seen]:
    trial, claim = attempt.trial, attempt.bench.engine.capabilities.answers_cancel
    running = trial.phase in {"prefill", "first token", "decode"}
    due = claim == "always" or (claim == "running" and running)
    if due and trial.told and not attempt.finished and not trial.answered:
        yield "answers_cancel", f"claims {claim!r}, and said no last word"


def _the_canary_sings(attempt: Attempt) -> Iterator[Seen]:
    trial, bench = attempt.trial, attempt.bench
    if trial.phase in NO_READER:
        return
    extra = bench.engine.capabilities.extra_steps
    steps = (1 if extra is None else extra) + 1
    due = bench.plan.canary_factor * (bench.pace.first_token + steps * bench.pace.step)
    due += bench.plan.canary_slack
    if trial.phase == "prefill" and bench.engine.capabilities.cancel_prefill == "none":
        due += bench.pace.long_first_token
    if trial.canary is None or trial.canary > due:
        took = "never came" if trial.canary is None else f"took {trial.canary:.3g} s"
        idle = f"{bench.pace.first_token:.3g} s on the idle engine, due {due:.3g} s"
        yield "canary", f"one token right after the cancel {took}; {idle}"


def _the_books_balance(attempt: Attempt) -> Iterator[Seen]:
    reader, outcome = attempt.reader, attempt.outcome
    if reader.generation is None:
        return
    usage = reader.generation.usage
    if usage.handed_over != reader.tokens:
        yield "books", f"handed over {usage.handed_over} tokens, and the reader got {reader.tokens}"
    made = outcome.tokens_made if outcome is not None and outcome.stopped else None
    if made is not None and usage.produced > made:
        yield "books", f"{usage.produced} tokens came out of an engine that made {made}"
    if attempt.finished and made is not None and usage.produced != made:
        yield "books", f"a whole answer has {usage.produced} tokens, and the engine made {made}"


Rule: TypeAlias = Callable[[Attempt], Iterator[Seen]]
_RULES: Final[tuple[Rule, ...]] = (
    _loop_runs,
    _reader_ends,
    _leaving_never_raises,
    _cancel_says_who_was_first,
    _the_end_stays,
    _nothing_begins,
    _it_stops,
    _it_computes_no_more,
    _the_abort_works,
    _the_proof_is_the_claimed_one,
    _it_answers,
    _the_canary_sings,
    _the_books_balance,
)

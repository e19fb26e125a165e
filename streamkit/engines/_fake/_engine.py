"""The fake engine: a simulated one behind the same adapter that real engines have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import anyio

from streamkit.engines._adapter import EngineBase
from streamkit.engines._base import (
    Capabilities,
    EngineStatistics,
    Proof,
)
from streamkit.engines._ladder import LadderLimits
from streamkit.engines._options import Option, Real, Switch, Whole, Words, check_options
from streamkit.engines._run import EngineRun, Opening, Owner

from ._lies import build_lie, forms
from ._log import StepLog
from ._scheduler import Job, Machine
from ._simulator import Simulator

CONTEXT_LIMIT: Final = 1 << 20  # tokens of one sequence; more is a mistake, not a request
CHOICES_LIMIT: Final = 128  # as OpenAI's API has it
# Each word is as likely as any other, at whatever temperature.
TAKES: Final = frozenset({"prompt_ids", "temperature", "top_p", "seed", "logprobs"})
# As long as it does not lie.
CAPABILITIES: Final = Capabilities(
    cancel_queued=True,
    cancel_prefill="chunk",
    extra_steps=1,
    answers_cancel="always",
    early_cancel_safe=False,
    fence=True,
    observes=True,
    backpressure=False,
    thread_safe_cancel=False,
    kill=False,
    proof=Proof.OBSERVED,
    takes=TAKES,
)

OPTIONS: Final[Mapping[str, Option]] = {
    option.name: option
    for option in (
        Option("slots", Whole(1, 100_000), 8, "sequences that run at once"),
        Option("step_ms", Real(0.01, 60_000), 20.0, "milliseconds of one step"),
        Option(
            "prefill_tokens_per_step",
            Whole(1, CONTEXT_LIMIT),
            512,
            "prompt tokens that one step takes, of all sequences together",
        ),
        Option("kv_tokens", Whole(1, 1 << 40), None, "tokens that the KV cache holds"),
        Option(
            "max_tokens", Whole(1, CONTEXT_LIMIT), 128, "tokens of an answer that names no limit"
        ),
        Option("seed", Whole(-(1 << 63), (1 << 63) - 1), 0, "decides the words"),
        Option(
            "lie", Words(f"one of {forms()}", build_lie), None, "how it breaks its word on aborts"
        ),
        Option("max_queued", Whole(0, 1_000_000), 4096, "sequences that may wait for a slot"),
        Option("speculative", Whole(1, 64), 1, "tokens that a step makes for a sequence, at most"),
        Option("kill", Switch(), False, "whether a request can be ended by force"),
    )
}


class FakeEngine(EngineBase):
    """A simulated continuous-batching engine on the loop's clock, deterministic from its seed.

    It has slots and a queue, takes long prompts in chunks, needs KV cache, may speculate, and has
    the raw interface of real engines: an abort is a message that it looks at between two steps. One
    word is one token; it answers every request with ``max_tokens`` words, each as likely as any
    other. What it computed, and for
    whom, stands in :attr:`log`, which nothing else writes.

    It needs an event loop only while it works, and has a task only then.

    Args:
        slots: Sequences that run at once.
        step_ms: Milliseconds of one step, whatever is in it.
        prefill_tokens_per_step: Prompt tokens that one step takes, of all sequences together.
        kv_tokens: Tokens that the KV cache holds; a sequence reserves its prompt and its whole
            answer when it gets a slot. None is enough for everybody.
        max_tokens: Tokens of an answer when the request names no limit.
        seed: Decides the words: the same seed, prompt and choice give the same answer.
        lie: How it breaks its word on aborts: ``"ignore_abort"``, ``"lose_abort:K"``,
            ``"ack_and_run_on"``, ``"answer_late:SECONDS"``, ``"never_answer"``, ``"crash"``,
            ``"crash:STEP"``, ``"block:SECONDS"``; None keeps it.
        max_queued: Sequences that may wait for a slot; more are refused.
        speculative: Tokens that a step makes for a sequence, at most.
        kill: Whether a request can be ended by force.
        name: Its name in logs and metrics.
        limits: How long the ladder waits for proofs of stop; None is a second for each rung, or
            three steps where that is longer.

    Raises:
        ValueError: An argument is out of its range; the message names it.
    """

    def __init__(  # noqa: PLR0913 - the options of the engine, each by its name
        self,
        *,
        slots: int = 8,
        step_ms: float = 20.0,
        prefill_tokens_per_step: int = 512,
        kv_tokens: int | None = None,
        max_tokens: int = 128,
        seed: int = 0,
        lie: str | None = None,
        max_queued: int = 4096,
        speculative: int = 1,
        kill: bool = False,
        name: str = "fake",
        limits: LadderLimits | None = None,
    ) -> None:
        check_options(
            OPTIONS,
            slots=slots,
            step_ms=step_ms,
            prefill_tokens_per_step=prefill_tokens_per_step,
            kv_tokens=kv_tokens,
            max_tokens=max_tokens,
            seed=seed,
            lie=lie,
            max_queued=max_queued,
            speculative=speculative,
            kill=kill,
        )
        super().__init__(name, limits or _limits_for(step_ms / 1000))
        self._machine = Machine(
            slots=slots,
            step=step_ms / 1000,
            prefill_tokens_per_step=prefill_tokens_per_step,
            kv_tokens=kv_tokens,
            speculative=speculative,
            max_queued=max_queued,
            kill=kill,
            seed=seed,
        )
        self._max_tokens = max_tokens
        self._simulator = Simulator(self._machine, build_lie(lie))

    @property
    def log(self) -> StepLog:
        """What it computed, step by step, and for whom: its own record, independent of ours."""
        return self._simulator.log

    @property
    def capabilities(self) -> Capabilities:
        """What is true of it, as long as it does not lie."""
        return replace(CAPABILITIES, kill=self._machine.kill)

    @property
    def failure(self) -> BaseException | None:
        """What it died of, or None."""
        return self._simulator.failure

    def statistics(self) -> EngineStatistics:
        """Its books."""
        simulator = self._simulator
        load = simulator.load()
        return EngineStatistics(
            slots=self._machine.slots,
            running=load.running,
            queued=load.queued,
            steps=simulator.log.steps,
            tokens=simulator.log.tokens,
            quarantined=sum(simulator.slots_of(r.request_id) for r in self._runs.quarantined),
            misbehaviours=self._runs.broken_words,
        )

    async def fence(self) -> None:
        """Return when everything that was told to the engine before has been looked at.

        A liar may never answer.

        Cancellation:
            Stops waiting.
        """
        passed = anyio.Event()
        self._simulator.fence(passed.set)
        await passed.wait()

    async def aclose(self) -> None:
        """Stop the engine and everything it runs. Idempotent.

        Cancellation:
            Stops waiting for the step loop to end; everything has ended all the same.
        """
        self._cancel_all(f"engine {self.name} is closing")
        await self._simulator.aclose()

    def _make_run(self, opening: Opening) -> EngineRun:
        limit = opening.request.max_tokens or self._max_tokens
        run = _FakeRun(opening, self._runs, self._simulator, limit)
        self._check_fits(run.job)
        return run

    def _check_fits(self, job: Job) -> None:
        capacity = min(CONTEXT_LIMIT, self._machine.kv_tokens or CONTEXT_LIMIT)
        if job.kv_tokens > capacity:
            raise ValueError(
                f"prompt ({job.prompt_tokens} tokens) and answer (max_tokens {job.limit}) need "
                f"{job.kv_tokens} tokens, the engine holds {capacity}: send a shorter prompt or a "
                "lower max_tokens"
            )
        if job.n > CHOICES_LIMIT:
            raise ValueError(f"n must be at most {CHOICES_LIMIT}, got {job.n}")


def _limits_for(step: float) -> LadderLimits:
    # An abort is looked at when the step has ended, so no bound may be shorter than that.
    usual = LadderLimits()
    return LadderLimits(
        stop_bound=max(usual.stop_bound, 3 * step),
        again_bound=max(usual.again_bound, 3 * step),
        kill_bound=max(usual.kill_bound, 3 * step),
    )


class _FakeRun(EngineRun):
    """The adapter: it is the sink of its request, and looks into the books after an abort."""

    __slots__ = ("_simulator", "job")

    def __init__(self, opening: Opening, owner: Owner, simulator: Simulator, limit: int) -> None:
        super().__init__(opening, owner)
        self._simulator = simulator
        request = opening.request
        # One id is one token, as one word is.
        prompt = request.prompt or " ".join(map(str, request.prompt_ids))
        self.job = Job(self.request_id, prompt, limit, request.n, self)
        self.job.seed = request.sampling.seed
        self.job.logprobs = request.sampling.logprobs
        self.limit = limit * request.n

    async def kill(self) -> bool:
        """End it by force, if the engine was made so."""
        return self._simulator.kill(self.request_id)

    def failed(self, error: BaseException, proof: Proof | None = Proof.OBSERVED) -> None:
        """It died, or refused: either way its books hold nothing any more."""
        super().failed(error, proof)

    def _submit(self) -> None:
        self._simulator.submit(self.job)
        # Known at once: what is sent from now on stands behind it in the same inbox.
        self.registered(self.job.prompt_tokens)

    def _abort(self) -> None:
        self._simulator.watch_books(self._look)
        self._simulator.abort(self.request_id)
        self._simulator.fence(self._fenced)

    def _tokens_made(self) -> int | None:
        return self._simulator.log.tokens_of(self.request_id)

    def _fenced(self) -> None:
        self.proved(Proof.FENCED)

    def _look(self) -> None:
        if not self._simulator.holds(self.request_id):
            self._simulator.unwatch_books(self._look)
            self.proved(Proof.OBSERVED)

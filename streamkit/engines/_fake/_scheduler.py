"""Continuous batching without clock or await: who waits, who is in a slot, what one step makes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from streamkit.engines._base import TokenLogprob

from ._text import Speaker, count_words, likelihood


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the simulated engine can do.

    Attributes:
        slots: Sequences that run at once.
        step: Seconds of one step, whatever is in it.
        prefill_tokens_per_step: Prompt tokens that one step takes, of all sequences together.
        kv_tokens: Tokens that the KV cache holds, or None for enough.
        speculative: Tokens that a step makes for a sequence, at most.
        max_queued: Sequences that may wait for a slot.
        kill: Whether a request can be ended by force.
        seed: Decides the words.
    """

    slots: int
    step: float
    prefill_tokens_per_step: int
    kv_tokens: int | None
    speculative: int
    max_queued: int
    kill: bool
    seed: int


class Sink(Protocol):
    """Where the engine tells one request's owner what happens to it."""

    def started(self) -> None:
        """Its first sequence got a slot."""

    def output(
        self,
        index: int,
        text: str,
        tokens: int,
        finish_reason: str | None,
        logprobs: tuple[TokenLogprob, ...] = (),
    ) -> None:
        """One sequence made tokens."""

    def answered(self) -> None:
        """The last word: all sequences are complete, or the request was aborted."""

    def failed(self, error: BaseException) -> None:
        """The engine died."""


class Job:
    """One request inside the engine; each of its ``n`` choices is a sequence of its own."""

    __slots__ = (
        "id",
        "limit",
        "logprobs",
        "muted",
        "n",
        "prompt",
        "prompt_tokens",
        "seed",
        "sequences",
        "sink",
        "started",
    )

    def __init__(self, id_: str, prompt: str, limit: int, n: int, sink: Sink) -> None:
        self.id = id_
        self.prompt = prompt
        self.prompt_tokens = count_words(prompt)
        self.limit = limit  # tokens of each sequence
        self.n = n
        self.sink = sink
        self.sequences: dict[Sequence, None] = {}  # those that have not ended
        self.started = False
        self.seed: int | None = None  # in the place of the machine's
        self.logprobs: int | None = None  # alternatives of each token that are told
        self.muted = False  # its last word was said: whatever it still makes is kept back

    @property
    def kv_tokens(self) -> int:
        """KV cache of one of its sequences when it is complete."""
        return self.prompt_tokens + self.limit

    def __repr__(self) -> str:
        return f"<Job {self.id}: {len(self.sequences)} of {self.n} sequences left>"


class Sequence:
    """One choice of a request."""

    __slots__ = ("in_slot", "index", "job", "left", "prompt_left", "speaker")

    def __init__(self, job: Job, index: int, seed: int) -> None:
        self.job = job
        self.index = index
        self.prompt_left = job.prompt_tokens
        self.left = job.limit
        self.speaker = Speaker(seed if job.seed is None else job.seed, job.prompt, index)
        self.in_slot = False

    def __repr__(self) -> str:
        return f"<Sequence {self.index} of {self.job.id}: {self.left} tokens left>"


class Output(NamedTuple):
    """What one sequence made in one step."""

    job: Job
    choice: int
    text: str
    tokens: int
    finish_reason: str | None
    logprobs: tuple[TokenLogprob, ...]


@dataclass(slots=True)
class Work:
    """What one step did: tokens by request id, output by sequence, requests that it completed."""

    prefill: dict[str, int] = field(default_factory=dict[str, int])
    decode: dict[str, int] = field(default_factory=dict[str, int])
    outputs: list[Output] = field(default_factory=list[Output])
    completed: list[Job] = field(default_factory=list[Job])


class Scheduler:
    """First come, first served. A sequence takes its slot and all the KV cache it may need at once.

    Reserving the whole of prompt and answer is less than what real engines do (they grow block by
    block, and preempt when they run out), and it is the one rule under which a sequence that was
    admitted always completes: no preemption that a test or a reader would have to understand.
    """

    __slots__ = ("_jobs", "_machine", "_running", "_waiting", "kv_used")

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._jobs: dict[str, Job] = {}
        self._waiting: dict[Sequence, None] = {}
        self._running: dict[Sequence, None] = {}
        self.kv_used = 0

    @property
    def running(self) -> int:
        """Sequences in a slot."""
        return len(self._running)

    @property
    def queued(self) -> int:
        """Sequences that wait for one."""
        return len(self._waiting)

    def jobs(self) -> list[Job]:
        """Everything it holds."""
        return list(self._jobs.values())

    def job(self, job_id: str) -> Job | None:
        """The request, while a sequence of it waits or runs."""
        return self._jobs.get(job_id)

    def slots_of(self, job_id: str) -> int:
        """Slots that the request occupies."""
        job = self._jobs.get(job_id)
        return sum(sequence.in_slot for sequence in job.sequences) if job else 0

    def add(self, job: Job) -> None:
        """Put its sequences into the queue."""
        self._jobs[job.id] = job
        for index in range(job.n):
            sequence = Sequence(job, index, self._machine.seed)
            job.sequences[sequence] = None
            self._waiting[sequence] = None

    def admit(self) -> list[Job]:
        """Fill free slots from the head of the queue; return the requests that start now.

        A head that does not fit holds up those behind it, else a long one would wait for ever.
        """
        starting: list[Job] = []
        while self._waiting and len(self._running) < self._machine.slots:
            sequence = next(iter(self._waiting))
            job = sequence.job
            if not self._fits(job):
                break
            del self._waiting[sequence]
            self._running[sequence] = None
            sequence.in_slot = True
            self.kv_used += job.kv_tokens
            if not job.started:
                job.started = True
                starting.append(job)
        return starting

    def step(self) -> Work:
        """Let everyone in a slot go on by one step.

        Prefill is served in the order of admission. The step that takes the last of a prompt makes
        the first token.
        """
        work = Work()
        prefill, decode, outputs = work.prefill, work.decode, work.outputs
        budget, most = self._machine.prefill_tokens_per_step, self._machine.speculative
        ended: list[Sequence] = []
        for sequence in self._running:
            job = sequence.job
            if sequence.prompt_left:
                taken = min(budget, sequence.prompt_left)
                if taken:
                    budget -= taken
                    sequence.prompt_left -= taken
                    prefill[job.id] = prefill.get(job.id, 0) + taken
                if sequence.prompt_left:
                    continue
            tokens = 1 if most == 1 else min(sequence.speaker.guess(most), sequence.left)
            sequence.left -= tokens
            decode[job.id] = decode.get(job.id, 0) + tokens
            finish_reason = None
            if not sequence.left:
                finish_reason = "length"
                ended.append(sequence)
            text = sequence.speaker.say(tokens)
            logprobs = () if job.logprobs is None else likelihood(text, job.logprobs)
            outputs.append(Output(job, sequence.index, text, tokens, finish_reason, logprobs))
        for sequence in ended:
            self._release(sequence)
            if not sequence.job.sequences:
                work.completed.append(self._jobs.pop(sequence.job.id))
        return work

    def remove(self, job_id: str) -> Job | None:
        """Take a request out, wherever it is; None when it is not held."""
        job = self._jobs.pop(job_id, None)
        if job is not None:
            for sequence in list(job.sequences):
                self._release(sequence)
        return job

    def _fits(self, job: Job) -> bool:
        limit = self._machine.kv_tokens
        return limit is None or self.kv_used + job.kv_tokens <= limit

    def _release(self, sequence: Sequence) -> None:
        job = sequence.job
        del job.sequences[sequence]
        if sequence.in_slot:
            sequence.in_slot = False
            del self._running[sequence]
            self.kv_used -= job.kv_tokens
        else:
            del self._waiting[sequence]

    def __repr__(self) -> str:
        return f"<Scheduler {self.running} running, {self.queued} queued, {self.kv_used} KV tokens>"

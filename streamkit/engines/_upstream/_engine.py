"""``UpstreamEngine``: any server that speaks OpenAI's API, left by closing the connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import anyio

from streamkit.engines._async_engine import AsyncEngine
from streamkit.engines._base import Capabilities, Chunk, EngineStatistics, Proof
from streamkit.engines._job import Job
from streamkit.engines._ladder import LadderLimits
from streamkit.engines._optional import check_installed
from streamkit.engines._options import check_options
from streamkit.errors import EngineFailed, RequestRefused

from ._options import ABORT_BODY, OPTIONS, filled
from ._words import Answer, body_of, path_of, read

if TYPE_CHECKING:
    from ._proof import Prover

INSTALL: Final = "pip install httpx2"

CAPABILITIES: Final = Capabilities(
    cancel_queued=False,  # its queue is its own affair; in the one here a cancel is the end
    cancel_prefill="none",
    extra_steps=None,
    answers_cancel="never",
    early_cancel_safe=True,  # the end of a connection cannot overtake its beginning
    proof=Proof.CLOSED,
    takes=frozenset(
        {
            "messages",
            "prompt_ids",
            "stop",
            "temperature",
            "top_p",
            "seed",
            "frequency_penalty",
            "presence_penalty",
            "logprobs",
        }
    ),
)


class UpstreamEngine(AsyncEngine):
    """A server that speaks OpenAI's API, as an engine: streamkit as a cancelling gateway.

    Each generation is a connection of its own and always a stream, so that to leave it closes
    something. Whether the server notices is not known (``proof="closed"``) unless there is a way to
    find out: ``"canary"`` sends a one-token request behind each cancel to a server with one slot,
    ``"streamkit"`` asks the books of a streamkit. What is not proved keeps its slot here, so that
    nobody is sent behind a request that may still run.

    Args:
        base_url: Where its API is, up to and with ``/v1``.
        model: The model to ask for; None has :meth:`load` take the only one that it has.
        api_key: Sent as a bearer token.
        slots: Requests that it is sent at once; the others wait here, first come, first served.
        proof: What proves a stop: ``"closed"``, ``"canary"`` (with ``slots=1``), ``"streamkit"``.
        abort_url: Where an abort is posted once the connection is closed; ``{id}`` is the id.
        abort_body: The JSON that is posted; the default is for vLLM's ``/abort_requests``.
        extra_body: JSON that is added to each request, as ``{"rid": "{id}"}`` for SGLang.
        connect_timeout: Seconds that a connection may take, and a write.
        read_timeout: Seconds that the server may be silent, before its answer and within.
        trust_env: Whether proxies are taken from the environment.
        name: Its name in logs and metrics, and as a model; None takes the model's, or "upstream".
        limits: How long the ladder waits for a proof of stop.

    Raises:
        ValueError: An argument is out of its range; the message names it.
        MissingPackage: httpx2 is not installed.
    """

    def __init__(  # noqa: PLR0913 - the options of the engine, each by its name
        self,
        base_url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        slots: int = 64,
        proof: str = "closed",
        abort_url: str | None = None,
        abort_body: str = ABORT_BODY,
        extra_body: str = "{}",
        connect_timeout: float = 5.0,
        read_timeout: float = 300.0,
        trust_env: bool = False,
        name: str | None = None,
        limits: LadderLimits | None = None,
    ) -> None:
        check_options(
            OPTIONS,
            base_url=base_url,
            slots=slots,
            proof=proof,
            abort_url=abort_url,
            abort_body=abort_body,
            extra_body=extra_body,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            trust_env=trust_env,
        )
        _check_key(api_key)
        if proof == "canary" and slots != 1:
            raise ValueError(
                f"proof=canary needs slots=1, got {slots}: a free slot would answer the canary, "
                "and nothing could be concluded about the others"
            )
        super().__init__(name or model or "upstream", CAPABILITIES, limits)
        check_installed("httpx2", engine="upstream", install=INSTALL)
        from ._http import Http  # noqa: PLC0415 - httpx2 is optional

        self._http = Http(
            base_url,
            api_key=api_key,
            connections=2 * slots + 4,  # for aborts and proofs as well
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            trust_env=trust_env,
        )
        self._model = model
        self._proof = proof
        self._prover: Prover | None = None
        self._loaded = model is not None and proof == "closed"
        self._abort = (abort_url, abort_body)
        self._extra = extra_body
        self._slots = slots
        self._free = anyio.Semaphore(slots, fast_acquire=True)
        self._queued = 0
        self._sent = 0
        self._tokens = 0

    async def load(self) -> None:
        """Find out which model to ask for, and whether a stop can be proved.

        Does nothing the second time. With ``proof="canary"`` it asks the upstream for some tokens.

        Raises:
            RequestRefused: The upstream cannot be reached.
            EngineFailed: It has several models; or what should prove a stop proves nothing here.

        Cancellation:
            Closes the connections; nothing is changed.
        """
        if self._loaded:
            return
        if self._model is None:
            self._model = await self._only_model()
        if self._proof != "closed":
            from ._proof import PROVERS  # noqa: PLC0415 - httpx2 is optional

            prover = PROVERS[self._proof](self._http, self._model)
            bound = await prover.prepare()
            limits = self.limits
            self.limits: LadderLimits = replace(
                limits,
                stop_bound=max(limits.stop_bound, bound),
                again_bound=max(limits.again_bound, bound),
            )
            self._capabilities = replace(CAPABILITIES, proof=prover.proof)
            self._prover = prover
        self._loaded = True

    def check_alive(self) -> None:
        """Raise when nothing can be submitted now."""
        if not self._loaded:
            raise RequestRefused(
                f"engine {self.name} is not loaded: await its load()", retry_after=1.0, status=503
            )
        super().check_alive()

    async def stream(self, job: Job) -> AsyncGenerator[Chunk]:
        """Wait for a slot, then yield what the upstream sends; closing it closes the connection."""
        visit = _Visit(job)
        job.registered(lambda: self._after_close(visit))
        body = body_of(job.request, self._model, job.max_tokens) | filled(self._extra, job.id)
        answer = Answer(job.request.n)
        asked = self._http.stream(visit.path, body, job.id, visit.begin)
        async with self._slot(visit), asked as pieces:
            self._sent += 1
            async for chunk in read(pieces, answer):
                self._tokens += chunk.tokens
                if answer.finished and answer.tokens is not None:
                    job.counted_prompt(answer.prompt_tokens or 0)
                    job.made = answer.tokens
                yield chunk  # noqa: ASYNC119 - the pump closes this generator, always

    def statistics(self) -> EngineStatistics:
        """What was sent, and what came back: the upstream's own books are closed.

        A request runs from its being sent until it ended, or is proved to have stopped; a step is
        a request here.
        """
        return self.books(
            slots=self._slots,
            running=self._slots - self._free.value,
            queued=self._queued,
            steps=self._sent,
            tokens=self._tokens,
        )

    async def aclose(self) -> None:
        """Cancel everything, wait for its end, and close all connections. Idempotent."""
        await super().aclose()
        await self._http.aclose()

    # -- a slot --------------------------------------------------------------------------------

    @asynccontextmanager
    async def _slot(self, visit: _Visit) -> AsyncGenerator[None]:
        """Hold a slot for the block; and longer, where a stop is to be proved."""
        self._queued += 1
        try:
            await self._free.acquire()
        except BaseException:
            visit.job.proved(Proof.JOINED)  # nobody but us has heard of it
            raise
        finally:
            self._queued -= 1
        visit.holds_slot = True
        visit.job.started()
        try:
            yield
        finally:
            if not visit.sent:
                visit.job.proved(Proof.JOINED)
            if not (visit.sent and visit.job.cancelled and self._prover):
                self._release(visit)

    def _release(self, visit: _Visit) -> None:
        if visit.holds_slot:
            visit.holds_slot = False
            self._free.release()

    # -- after a cancel ------------------------------------------------------------------------

    async def _after_close(self, visit: _Visit) -> None:
        """The connection is closed: abort by URL, and have it proved, where there is a way."""
        if not visit.sent or visit.stopped:
            return
        try:
            await self._post_abort(visit.job.id)
        finally:
            # In held work, which nobody cancels from outside, and below the ladder's own limit.
            await self._prove(visit)  # noqa: ASYNC102

    async def _post_abort(self, request_id: str) -> None:
        url, body = self._abort
        if url is None:
            return
        with anyio.move_on_after(self.limits.stop_bound):
            await self._http.post(url.replace("{id}", request_id), filled(body, request_id))

    async def _prove(self, visit: _Visit) -> None:
        if self._prover is None:
            return
        if not visit.holds_slot:  # it ended by itself, while a thread cancelled it
            await self._free.acquire()
            visit.holds_slot = True
        await self._prover.wait_gone(visit.job.id, visit.path)
        visit.stopped = True
        self._release(visit)
        visit.job.proved(self._prover.proof)

    async def _only_model(self) -> str:
        told: Any = await self._http.get("/models")
        try:
            names = [str(model["id"]) for model in told["data"]]
        except (LookupError, TypeError):
            names = []
        if len(names) != 1:
            shown = ", ".join(names[:10]) or "none"
            raise EngineFailed(f"the upstream has not one model: {shown}; name it: model=…")
        return names[0]


class _Visit:
    """One request at the upstream.

    Attributes:
        job: The generation.
        path: The route that it takes.
        sent: Whether the upstream may have heard of it.
        holds_slot: Whether a slot here is its own.
        stopped: Whether it was proved to have.
    """

    __slots__ = ("holds_slot", "job", "path", "sent", "stopped")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.path = path_of(job.request)
        self.sent = False
        self.holds_slot = False
        self.stopped = False

    def begin(self) -> None:
        """It goes out."""
        self.sent = True

    def __repr__(self) -> str:
        return f"<_Visit of {self.job!r}, {'sent' if self.sent else 'waiting'}>"


def _check_key(api_key: str | None) -> None:
    # Not by its option, whose messages repeat the value.
    if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
        raise ValueError("option api_key must be printable ASCII; its value is not shown")


def from_options(base_url: str | None = None, **options: Any) -> UpstreamEngine:
    """Return the engine that a command line's options mean.

    Raises:
        ValueError: No upstream was named.
        MissingPackage: httpx2 is not installed.
    """
    if base_url is None:
        raise ValueError(
            "engine upstream needs to know where: --engine-option base_url=http://HOST:PORT/v1"
        )
    return UpstreamEngine(base_url, **options)

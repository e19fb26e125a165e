"""`ModelRunner`: one model class, many requests, and what each of them is doing at any moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, cast

from streamkit._core import CancelToken, current_token
from streamkit.runner._admission import MAX_QUEUED, UNKNOWN_SLOTS, Admission
from streamkit.runner._case import OnClosed
from streamkit.runner._inflight import REMEMBERED
from streamkit.runner._runner import Runner

from ._call import ModelCall
from ._gap import GapLimits
from ._generate import end_generate
from ._served import ServedModel
from ._slots import Slots
from ._threads import count_threads

if TYPE_CHECKING:
    from ._loading import LoadedModel

READ_TIMEOUT: Final = 60.0  # seconds between two chunks; Truss's own default


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How a model class is run; None leaves it to its ``config.yaml``.

    Attributes:
        predict_concurrency: Requests in ``predict`` at once.
        read_timeout: Seconds of silence between two chunks of a stream.
        first_chunk_timeout: Seconds until the first one; None takes ``read_timeout``.
        max_queued: Requests that may wait for a slot.
        max_wait: Seconds that one may; None for as long as it likes.
        slots_cover: Whether the ``/v1`` methods take a slot as well.
        interrupt_threads: Whether a cancel raises in running sync code (CPython).
        request_timeout: Seconds that a request may take in all; None for no limit.
        remembered: Ended requests that can be looked up.
    """

    predict_concurrency: int | None = None
    read_timeout: float | None = None
    first_chunk_timeout: float | None = None
    max_queued: int = MAX_QUEUED
    max_wait: float | None = None
    slots_cover: Literal["predict", "all"] = "predict"
    interrupt_threads: bool = False
    request_timeout: float | None = None
    remembered: int = REMEMBERED


class _ModelAdmission(Admission):
    """Requests may wait for the slot of a thread that runs on: mostly it ends."""

    __slots__ = ()

    @property
    def slots(self) -> int:
        """Those that are not lost."""
        slots = cast("ServedModel", self._served).slots
        return UNKNOWN_SLOTS if slots is None else slots.capacity - slots.lost


class ModelRunner(Runner):
    """Requests to one model class; none is admitted before :meth:`attach`.

    ::

        with runner.accept(token=token) as call:
            call.admit()
            result = await call.predict(inputs, request)
            ...                                             # send it
            await call.complete()

    Args:
        name: How the model is called.
        options: How it is run.

    Attributes:
        books: What it says of itself.
        options: How it is run.
        gaps: How long its streams may be silent.
    """

    __slots__ = ("_loaded", "books", "gaps", "options")

    def __init__(self, name: str, options: ModelOptions | None = None) -> None:
        self.options: ModelOptions = options or ModelOptions()
        self.books: ServedModel = ServedModel(name)
        super().__init__(
            self.books,
            max_queued=self.options.max_queued,
            request_timeout=self.options.request_timeout,
            remembered=self.options.remembered,
            admission=_ModelAdmission(self.books, self.options.max_queued, kind="model"),
        )
        self.gaps: GapLimits = GapLimits()
        self._loaded: LoadedModel | None = None
        self.admission.close("the model is loading")

    @property
    def loaded(self) -> LoadedModel | None:
        """The model, once it is loaded."""
        return self._loaded

    def attach(self, loaded: LoadedModel) -> None:
        """The model is loaded: admit requests, in the loop that runs."""
        count_threads()
        end_generate()
        options, config = self.options, loaded.config
        between = options.read_timeout or config.streaming_read_timeout or READ_TIMEOUT
        self.gaps = GapLimits(first=options.first_chunk_timeout or between, between=between)
        self.books.slots = Slots(options.predict_concurrency or config.predict_concurrency)
        self._loaded = loaded
        if not self.draining:
            self.admission.open()

    def fail(self, error: BaseException) -> None:
        """The model did not load: no request will ever be admitted."""
        self.books.failure = error
        self.admission.close("the model failed to load")

    def accept(
        self,
        *,
        request_id: str | None = None,
        token: CancelToken | None = None,
        on_closed: OnClosed | None = None,
    ) -> ModelCall:
        """A request has arrived: open its books; see :meth:`EngineRunner.accept`."""
        free_id = self.in_flight.choose_id(request_id)
        call = ModelCall(self, free_id, current_token() if token is None else token, on_closed)
        if self.request_timeout is not None:
            call.source.cancel_after(self.request_timeout)
        return call

    @property
    def slots(self) -> Slots:
        """Those of ``predict``; only once it is loaded."""
        return cast("Slots", self.books.slots)

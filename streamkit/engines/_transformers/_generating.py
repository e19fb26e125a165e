"""One ``model.generate()`` on a thread of its own, read as an iterator of chunks."""

from __future__ import annotations

import contextvars
import importlib
import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any, Final, Self

from streamkit.engines._base import Chunk
from streamkit.engines._job import Job

from ._layers import LayerHooks, Left, Watch, watching
from ._model import TextModel
from ._sampling import Likelihoods, config_of, seeded
from ._text import Choice

AHEAD: Final = 4  # steps that are made and not yet taken


class Generating:
    """A call of ``model.generate()``, which gives nothing back before its end, as an iterator.

    It has a thread of its own, and the stopping criterion, which is called there after each token,
    hands over what is new and waits when nobody takes it. Entered and read in one thread; leaving
    it stops the call and waits for its thread.

    Args:
        text_model: The model; others may be generating with it.
        hooks: In its layers.
        job: What to generate.
    """

    def __init__(self, text_model: TextModel, hooks: LayerHooks, job: Job) -> None:
        self._model = text_model
        self._hooks = hooks
        self._job = job
        self._left = False
        self._ended = False
        self._watch: Watch | None = None
        self._choices: list[Choice] = []
        self._likelihoods: Likelihoods | None = None
        self._torch: Any = importlib.import_module("torch")
        self._steps: queue.Queue[list[Chunk] | BaseException | None] = queue.Queue(AHEAD)
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=lambda: context.run(self._run),
            name=f"streamkit-generate {job.request_id}",
            daemon=True,  # as the thread that waits for it
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __iter__(self) -> Generator[Chunk]:
        """Yield what it makes.

        Raises:
            Exception: Whatever ``generate()`` raises.
        """
        while (step := self._take()) is not None:
            if isinstance(step, BaseException):
                raise step
            yield from step

    def __exit__(self, *_: object) -> None:
        self._left = True
        while not self._ended:  # it may be waiting for room
            self._take()
        self._thread.join()

    def _take(self) -> list[Chunk] | BaseException | None:
        step = self._steps.get()
        self._ended = step is None
        return step

    # -- its own thread ------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with watching(self._hooks, self._asked) as self._watch:
                self._generate()
            self._put([one.finish() for one in self._choices if not one.done])
        except Left:
            pass
        except BaseException as error:  # noqa: ASYNC103, BLE001 - raised where it is read
            self._put(error)
        finally:
            self._put(None)

    def _generate(self) -> None:
        request, model = self._job.request, self._model
        prompt = model.prompt_of(request)
        self._job.counted_prompt(len(prompt))
        limit = model.limit(prompt, self._job.max_tokens)
        self._choices = [
            Choice(index, model.decode, request.stop, model.ends, limit)
            for index in range(request.n)
        ]
        config = config_of(model.model, request, limit)
        rows = self._torch.tensor([prompt] * request.n, device=model.model.device)
        transformers = importlib.import_module("transformers")
        model.model.generate(
            input_ids=rows,
            attention_mask=self._torch.ones_like(rows),
            generation_config=config,
            logits_processor=transformers.LogitsProcessorList(self._processors(config)),
            stopping_criteria=transformers.StoppingCriteriaList([self._stop]),
        )

    def _processors(self, config: Any) -> Iterable[Any]:
        sampling = self._job.request.sampling
        if sampling.logprobs is not None:
            self._likelihoods = Likelihoods(sampling.logprobs, self._model.decode)
            yield self._likelihoods
        if sampling.seed is not None and config.do_sample:
            yield seeded(config, sampling.seed, self._model.model.device)

    def _asked(self) -> bool:
        return self._left or self._job.cancelled

    def _stop(self, input_ids: Any, scores: Any) -> Any:
        """The stopping criterion: which rows have ended; called with each new token of all rows."""
        del scores
        if self._watch is not None:
            self._watch.end()  # the prompt is through
        tokens: list[int] = input_ids[:, -1].tolist()
        chunks = [
            choice.add(token, self._likelihood(row, token))
            for row, (choice, token) in enumerate(zip(self._choices, tokens, strict=True))
            if not choice.done
        ]
        self._job.made = (self._job.made or 0) + len(chunks)
        self._put(chunks)
        over = self._asked()
        return self._torch.tensor(
            [over or choice.done for choice in self._choices], device=input_ids.device
        )

    def _likelihood(self, row: int, token: int) -> Any:
        return () if self._likelihoods is None else self._likelihoods.of(row, token)

    def _put(self, step: list[Chunk] | BaseException | None) -> None:
        if step != []:
            self._steps.put(step)

    def __repr__(self) -> str:
        return f"<Generating {self._job!r}>"

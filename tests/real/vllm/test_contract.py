"""What the adapter calls, and what its stub pretends, is there in the real vLLM."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from typing import Any

import pytest
from vllm.config import ModelConfig, ParallelConfig, SchedulerConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine import FINISH_REASON_STRINGS
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.output_processor import OutputProcessor
from vllm.v1.metrics.loggers import AggregateStatLoggerBase, StatLoggerManager
from vllm.v1.metrics.stats import IterationStats, SchedulerStats

from streamkit.engines._vllm import OPTIONS
from streamkit.engines._vllm._books import Books
from streamkit.engines._vllm._words import in_our_words, is_death
from streamkit.errors import BadPayload, RequestRefused
from tests.engines import vllm_stub as stub


def parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


def public(a_class: type) -> set[str]:
    return {name for name in vars(a_class) if not name.startswith("_")}


def test_every_module_that_the_stub_stands_for_is_there() -> None:
    for name in stub.MODULES:
        importlib.import_module(name)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (stub.SamplingParams, SamplingParams),
        (stub.CompletionOutput, CompletionOutput),
        (stub.RequestOutput, RequestOutput),
        (stub.Logprob, Logprob),
        (stub.AsyncEngineArgs, AsyncEngineArgs),
        (stub.AsyncLLM.generate, AsyncLLM.generate),
        (stub.AsyncLLM.abort, AsyncLLM.abort),
        (stub.AsyncLLM.shutdown, AsyncLLM.shutdown),
        (stub.render, None),
    ],
)
def test_the_stubs_arguments_are_vllms(ours: Any, theirs: Any) -> None:
    if theirs is None:
        transformers = importlib.import_module("transformers")
        theirs = transformers.PreTrainedTokenizerFast.apply_chat_template
        assert parameters(ours) - {"messages"} <= parameters(theirs)
        return
    assert parameters(ours) <= parameters(theirs)


def test_the_stubs_members_are_vllms() -> None:
    for_tests = {"die", "kill_quietly"}
    assert public(stub.AsyncLLM) - for_tests <= {
        name for base in AsyncLLM.__mro__ for name in vars(base)
    }
    source = inspect.getsource(AsyncLLM.__init__)
    for name in ("vllm_config", "model_config", "logger_manager", "output_processor"):
        assert f"self.{name}" in source
    books = inspect.getsource(OutputProcessor.__init__)
    for name in ("request_states", "parent_requests", "external_req_ids"):
        assert f"self.{name}" in books


def test_configurations_have_what_is_read_of_them() -> None:
    fields = {field.name for field in dataclasses.fields(SchedulerConfig)}
    assert {"max_num_seqs", "async_scheduling"} <= fields
    assert "data_parallel_size" in {field.name for field in dataclasses.fields(ParallelConfig)}
    assert hasattr(ModelConfig, "get_diff_sampling_param")
    assert RequestOutputKind.DELTA.name == "DELTA"


def test_the_options_of_the_command_line_are_vllms_arguments() -> None:
    fields = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    assert set(OPTIONS) - {"args"} <= fields


def test_our_books_can_stand_in_for_a_stat_logger() -> None:
    assert public(AggregateStatLoggerBase) <= public(Books)
    assert "stat_loggers" in inspect.getsource(StatLoggerManager.__init__)
    assert parameters(AggregateStatLoggerBase.record) == parameters(Books.record)
    scheduler = SchedulerStats(num_running_reqs=1, num_waiting_reqs=2, num_skipped_waiting_reqs=3)
    books = Books()
    books.record(scheduler, IterationStats())
    assert (books.running, books.waiting, books.steps, books.tokens) == (1, 5, 1, 0)


def test_every_word_for_an_end_is_known() -> None:
    assert set(FINISH_REASON_STRINGS) == {"stop", "length", "repetition", "abort", "error"}


def test_every_error_finds_who_has_to_act() -> None:
    exceptions = importlib.import_module("vllm.exceptions")
    engine = importlib.import_module("vllm.v1.engine.exceptions")

    def wrapped(error: Exception) -> Exception:
        generate = engine.EngineGenerateError()
        generate.__cause__ = error
        return generate

    assert is_death(engine.EngineDeadError())
    assert is_death(wrapped(engine.EngineDeadError()))
    assert isinstance(in_our_words(exceptions.VLLMValidationError("too long")), BadPayload)
    for refusal in (
        exceptions.QueueOverflowError(),
        exceptions.MaxQueuedTokensError(),
        wrapped(exceptions.RetryableRequestError("paused")),
    ):
        said = in_our_words(refusal)
        assert isinstance(said, RequestRefused)
        assert said.status == 503
    unknown = wrapped(RuntimeError("?"))
    assert in_our_words(unknown) is unknown

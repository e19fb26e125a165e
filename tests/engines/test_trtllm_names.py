"""The stub of TensorRT-LLM, and what the adapter calls, have the names of the published source.

Read at the commits named below, which belong to the 1.2 line; nothing of it is installed here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from streamkit.engines._trtllm import OPTIONS, _words

from . import trtllm_executor_stub as executor_stub
from . import trtllm_stub as stub
from .published_names import Names, members, parameters

REPOSITORY: Final = "NVIDIA/TensorRT-LLM"
RESULT: Final = "tensorrt_llm/executor/result.py at a678b91aafbeff265cd0b764abb59d7def624ac2"
LLM: Final = "tensorrt_llm/llmapi/llm.py at 4c05a74891e4df8066f08ed4ce14b0972abe4e25"
SAMPLING: Final = "tensorrt_llm/sampling_params.py at 000a01de66f0eab4ab05640711f0253f50f5209c"
TOKENIZER: Final = "tensorrt_llm/tokenizer/tokenizer.py at 08ed3ebc4c27293be3b19bd1fc7054a01c5b006c"
EXECUTOR: Final = (
    "cpp/tensorrt_llm/nanobind/executor/executor.cpp at 1dd50d0741fa3bdae3ffd2f54e53547cbe1a043d"
)
REQUEST: Final = (
    "cpp/tensorrt_llm/nanobind/executor/request.cpp at 008b2b8d23af95e4e19fa6f354f9c5f6349b2bfc"
)

PUBLISHED: Final[dict[str, Names]] = {
    RESULT: {
        "GenerationResult": (
            *("request_id", "prompt_token_ids", "abort", "aborted", "finished", "result"),
            *("aresult", "clear_logprob_params", "outputs", "context_logits"),
        ),
        "CompletionOutput": (
            *("index", "text", "token_ids", "cumulative_logprob", "logprobs", "prompt_logprobs"),
            *("finish_reason", "stop_reason", "generation_logits", "disaggregated_params"),
            *("length", "text_diff", "token_ids_diff", "logprobs_diff"),
        ),
        "Logprob": ("logprob", "rank"),
        "finish_reason": ("stop", "length", "timeout", "cancelled", "not_finished"),
    },
    LLM: {
        "LLM": ("args", "tokenizer", "generate_async", "shutdown", "get_stats", "get_stats_async"),
        "LLM.__init__": (
            *("model", "tokenizer", "tokenizer_mode", "skip_tokenizer_init", "trust_remote_code"),
            *("tensor_parallel_size", "dtype", "revision", "tokenizer_revision"),
        ),
        "LLM.generate_async": (
            *("inputs", "sampling_params", "lora_request", "prompt_adapter_request", "streaming"),
            *("kv_cache_retention_config", "disaggregated_params", "scheduling_params"),
            "cache_salt",
        ),
        # Read there of ``self.args``, whose class is in llm_args.py.
        "LLM.args": ("backend", "max_num_tokens", "enable_chunked_prefill", "max_batch_size"),
    },
    "tensorrt_llm/llmapi/llm_args.py, TorchLlmArgs and BaseLlmArgs": {
        "LlmArgs": ("disable_overlap_scheduler", "max_seq_len", "max_batch_size", "max_num_tokens"),
    },
    SAMPLING: {
        "SamplingParams": (
            *("end_id", "pad_id", "max_tokens", "bad", "bad_token_ids", "stop", "stop_token_ids"),
            *("include_stop_str_in_output", "n", "best_of", "use_beam_search", "top_k", "top_p"),
            *("seed", "temperature", "min_tokens", "presence_penalty", "frequency_penalty"),
            *("logprobs", "prompt_logprobs", "ignore_eos", "detokenize", "add_special_tokens"),
        ),
    },
    EXECUTOR: {
        "Executor": (
            *("shutdown", "enqueue_request", "enqueue_requests", "await_responses"),
            *("get_num_responses_ready", "cancel_request", "get_latest_iteration_stats"),
            *("get_latest_request_stats", "can_enqueue_requests"),
        ),
        "Executor.cancel_request": ("id",),
        "Executor.await_responses": ("timeout",),
        "Executor.enqueue_request": ("request",),
    },
    REQUEST: {
        "FinishReason": (
            *("NOT_FINISHED", "END_ID", "STOP_WORDS", "LENGTH", "TIMED_OUT", "CANCELLED"),
        ),
        "SamplingConfig": (
            *("beam_width", "top_k", "top_p", "seed", "temperature", "min_tokens"),
            *("presence_penalty", "frequency_penalty", "num_return_sequences"),
        ),
        "OutputConfig": ("return_log_probs", "exclude_input_from_output"),
        "Request": (
            *("input_token_ids", "max_tokens", "streaming", "sampling_config", "output_config"),
            *("end_id", "pad_id", "stop_words", "client_id"),
        ),
        "Result": (
            *("is_final", "output_token_ids", "finish_reasons", "sequence_index"),
            *("is_sequence_final", "decoding_iter"),
        ),
        "Response": ("request_id", "client_id", "has_error", "error_msg", "result"),
    },
    TOKENIZER: {
        "TransformersTokenizer": ("tokenizer", "encode", "decode", "apply_chat_template"),
    },
}
EXECUTORS_FOR_TESTS: Final = {
    *("requests", "steps", "broken", "deaf", "end_at", "idle", "fail"),
}
READ: Final[Names] = {name: names for file in PUBLISHED.values() for name, names in file.items()}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (members(stub.RequestOutput), "GenerationResult"),
        (members(stub.CompletionOutput), "CompletionOutput"),
        (members(stub.Logprob), "Logprob"),
        (parameters(stub.SamplingParams), "SamplingParams"),
        (parameters(stub.LLM.generate_async), "LLM.generate_async"),
        (parameters(stub.LLM.__init__), "LLM.__init__"),
        (members(stub.Tokenizer, {"words"}), "TransformersTokenizer"),
        (parameters(executor_stub.Executor.cancel_request), "Executor.cancel_request"),
        (parameters(executor_stub.Executor.await_responses), "Executor.await_responses"),
        (parameters(executor_stub.Executor.enqueue_request), "Executor.enqueue_request"),
        (set(executor_stub.FinishReason.__members__), "FinishReason"),
        (parameters(executor_stub.SamplingConfig), "SamplingConfig"),
        (parameters(executor_stub.OutputConfig), "OutputConfig"),
        (parameters(executor_stub.Request), "Request"),
        (members(executor_stub.Result), "Result"),
        (members(executor_stub.Response), "Response"),
        (members(executor_stub.Executor, EXECUTORS_FOR_TESTS), "Executor"),
    ],
)
def test_the_stub_has_no_name_that_is_not_published(ours: set[str], theirs: str) -> None:
    assert ours <= set(READ[theirs])


def test_the_stubs_engine_has_no_other_members_than_published_ones() -> None:
    for_tests = {
        *("worker", "handles", "calls", "refusal", "foreign_aborts", "shut_down", "queued_cancel"),
        *("die", "idle", "abort_request"),
    }
    assert members(stub.LLM, for_tests) <= set(READ["LLM"])
    arguments = set(vars(stub._DEFAULTS))
    assert arguments <= {*READ["LLM.args"], *READ["LlmArgs"]}


@pytest.mark.parametrize(
    ("name", "is_property"), [("finished", True), ("aborted", False), ("abort", False)]
)
def test_what_is_a_method_is_a_method(name: str, is_property: bool) -> None:
    assert isinstance(vars(stub.RequestOutput)[name], property) is is_property
    assert is_property or isinstance(vars(stub.RequestOutput)[name], Callable)


def test_the_command_lines_options_are_published_arguments() -> None:
    ours = set(OPTIONS) - {"args"}
    assert ours <= {*READ["LLM.__init__"], *READ["LLM.args"], *READ["LlmArgs"]}


def test_what_the_adapter_asks_for_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys  # noqa: PLC0415 - for the stand-in alone

    from streamkit.engines import GenerationRequest, Sampling  # noqa: PLC0415

    asked: dict[str, Any] = {}
    recorder = type(sys)("tensorrt_llm")
    recorder.SamplingParams = lambda **values: asked.update(values)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt_llm", recorder)
    every = Sampling(
        temperature=0.5, top_p=0.9, seed=3, frequency_penalty=0.1, presence_penalty=0.2, logprobs=2
    )
    for sampling in (every, Sampling(temperature=0)):
        _words.sampling_params(GenerationRequest(prompt="w", stop=("x",), sampling=sampling), 3)

    assert "top_k" in asked
    assert set(asked) <= set(READ["SamplingParams"])

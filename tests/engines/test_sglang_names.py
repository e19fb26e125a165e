"""The stub of SGLang, and what the adapter calls, have the names of the published source.

Read in the wheel of 0.5.23; nothing of it is installed here.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

from streamkit.engines import GenerationRequest, Sampling
from streamkit.engines._sglang import OPTIONS, _words
from streamkit.engines._sglang._options import from_options

from . import sglang_stub as stub
from .published_names import Names, members, parameters

PUBLISHED: Final[dict[str, Names]] = {
    "sglang/srt/entrypoints/engine.py": {
        "Engine": ("async_generate", "shutdown", "server_args", "tokenizer_manager", "loop"),
        "Engine.async_generate": (
            *("prompt", "sampling_params", "input_ids", "image_data", "return_logprob"),
            *("logprob_start_len", "top_logprobs_num", "token_ids_logprob", "lora_path", "stream"),
            *("rid", "session_params", "priority", "session_id"),
        ),
    },
    "sglang/srt/managers/tokenizer_manager.py": {
        "TokenizerManager": (
            *("abort_request", "rid_to_state", "tokenizer", "generate_request", "event_loop"),
            *("auto_create_handle_loop", "incremental_streaming_output", "load_snapshot_reader"),
            *("gracefully_exit", "pause_generation"),
        ),
        "TokenizerManager.abort_request": ("rid", "abort_all"),
        "ReqState": (
            *("out_list", "finished", "event", "obj", "dispatched", "abort_sent", "output_ids"),
        ),
        "output": ("text", "output_ids", "meta_info", "index"),
        "meta_info": (
            *("id", "finish_reason", "prompt_tokens", "completion_tokens", "cached_tokens"),
            *("output_token_logprobs", "output_top_logprobs"),
        ),
    },
    "sglang/srt/managers/load_snapshot.py": {
        "LoadSnapshot": ("num_running_reqs", "num_waiting_reqs", "max_running_requests"),
        "reader": ("read_all",),
    },
    "sglang/srt/managers/scheduler.py, abort_request(): startswith()": {
        "Scheduler": ("abort_request", "waiting_queue", "chunked_req"),
    },
    "sglang/srt/sampling/sampling_params.py": {
        "SamplingParams": (
            *("max_new_tokens", "stop", "stop_token_ids", "temperature", "top_p", "top_k"),
            *("frequency_penalty", "presence_penalty", "n", "sampling_seed"),
        ),
    },
    "sglang/srt/arg_groups/fields": {
        "ServerArgs": (
            *("model_path", "tokenizer_path", "dtype", "quantization", "context_length"),
            *("max_running_requests", "chunked_prefill_size", "mem_fraction_static", "tp_size"),
            *("trust_remote_code", "disable_overlap_schedule", "incremental_streaming_output"),
        ),
    },
}
READ: Final[Names] = {name: names for file in PUBLISHED.values() for name, names in file.items()}
FOR_TESTS: Final = {
    *("calls", "shut_down", "idle", "scheduler", "refusal", "handle_output", "handle_abort"),
    *("words", "rid", "params", "wanted", "index", "prompt_tokens"),
}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (members(stub.Engine, FOR_TESTS), "Engine"),
        (members(stub.TokenizerManager, FOR_TESTS), "TokenizerManager"),
        (members(stub.ReqState, FOR_TESTS), "ReqState"),
        (parameters(stub.Engine.async_generate), "Engine.async_generate"),
        (parameters(stub.TokenizerManager.abort_request), "TokenizerManager.abort_request"),
        (set(vars(stub.Engine().server_args)), "ServerArgs"),
        (set(vars(stub.Engine().tokenizer_manager.load_snapshot_reader)), "reader"),
        (set(vars(stub.Engine().tokenizer_manager._loads()[0])), "LoadSnapshot"),
    ],
)
def test_the_stub_has_no_name_that_is_not_published(ours: set[str], theirs: str) -> None:
    assert ours <= set(READ[theirs])


@pytest.mark.asyncio_only
async def test_the_stubs_outputs_have_no_name_that_is_not_published() -> None:
    stream = await stub.Engine().async_generate(
        ["w", "w"],
        [{"max_new_tokens": 1}] * 2,
        return_logprob=True,
        top_logprobs_num=1,
        stream=True,
        rid=["a", "b"],
    )
    outputs = [output async for output in stream]

    assert set(outputs[0]) <= set(READ["output"])
    assert set(outputs[0]["meta_info"]) <= set(READ["meta_info"])


def test_the_command_lines_options_are_published_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: True)
    every: dict[str, Any] = dict.fromkeys(set(OPTIONS) - {"args"}, "1")

    engine = from_options(**every)

    assert set(engine._arguments or ()) <= set(READ["ServerArgs"])  # type: ignore[attr-defined]


def test_what_the_adapter_asks_for_is_published() -> None:
    every = Sampling(
        temperature=0.5, top_p=0.9, seed=3, frequency_penalty=0.1, presence_penalty=0.2, logprobs=2
    )
    request = GenerationRequest(prompt="w", stop=("x",), sampling=every)

    assert set(_words.sampling_params(request, 3, 0)) <= set(READ["SamplingParams"])

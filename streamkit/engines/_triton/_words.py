"""Between Triton's tensors and ours: those of TensorRT-LLM's ``ensemble`` and ``…_bls`` models."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final

from streamkit.engines._request import GenerationRequest
from streamkit.errors import BadPayload, EngineFailed, RequestRefused

# By the name of the tensor: its type in Triton's words, and in numpy's.
_TYPES: Final[Mapping[str, tuple[str, str]]] = {
    "text_input": ("BYTES", "object"),
    "stop_words": ("BYTES", "object"),
    "max_tokens": ("INT32", "int32"),
    "num_return_sequences": ("INT32", "int32"),
    "top_k": ("INT32", "int32"),
    "top_p": ("FP32", "float32"),
    "temperature": ("FP32", "float32"),
    "frequency_penalty": ("FP32", "float32"),
    "presence_penalty": ("FP32", "float32"),
    "seed": ("UINT64", "uint64"),
    "stream": ("BOOL", "bool"),
    "exclude_input_in_output": ("BOOL", "bool"),
}
_PLAIN: Final = ("top_p", "seed", "frequency_penalty", "presence_penalty")
_RETRY_AFTER: Final = 1.0  # seconds; Triton says none


def values_of(request: GenerationRequest, max_tokens: int | None) -> dict[str, list[Any]]:
    """Return what is asked for, by the name of its tensor."""
    sampling = request.sampling
    values: dict[str, Any] = {name: getattr(sampling, name) for name in _PLAIN}
    if sampling.temperature == 0:  # TensorRT-LLM knows none
        values |= {"top_k": 1, "top_p": None}
    elif sampling.temperature is not None:  # without top_p it would take the likeliest all the same
        values |= {"temperature": sampling.temperature, "top_p": sampling.top_p or 1.0}
    if request.n > 1:
        values["num_return_sequences"] = request.n
    values |= {"max_tokens": max_tokens, "stream": True, "exclude_input_in_output": True}
    single = {name: [value] for name, value in values.items() if value is not None}
    texts = {"text_input": [request.prompt], "stop_words": list(request.stop)}
    return single | {name: [text.encode() for text in each] for name, each in texts.items() if each}


def tensors(values: Mapping[str, list[Any]]) -> list[Any]:
    """Return the same as Triton's inputs: a batch of one."""
    client, numpy = importlib.import_module("tritonclient.grpc"), importlib.import_module("numpy")
    inputs: list[Any] = []
    for name, row in values.items():
        datatype, dtype = _TYPES[name]
        tensor = client.InferInput(name, [1, len(row)], datatype)
        tensor.set_data_from_numpy(numpy.array([row], dtype=dtype))
        inputs.append(tensor)
    return inputs


def text_of(result: Any) -> str:
    """Return what one response adds to the text."""
    pieces = result.as_numpy("text_output")
    if pieces is None:
        raise EngineFailed("Triton's model has no output text_output: is it TensorRT-LLM's?")
    return b"".join(pieces.flatten().tolist()).decode(errors="replace")


def index_of(result: Any) -> int:
    """Return the choice that one response belongs to."""
    index = result.as_numpy("sequence_index")
    return 0 if index is None or not index.size else int(index.flatten()[0])


def in_our_words(error: Exception) -> Exception:
    """Return the error that says who has to act; itself where Triton failed.

    gRPC's own errors and those of Triton's client have the same status, in other places.
    """
    code: Any = getattr(error, "code", None)
    status = str(code() if callable(code) else getattr(error, "status", str)() or "")
    message: Any = getattr(error, "details", None) or getattr(error, "message", None)
    said = str((message() if callable(message) else None) or error)
    if "UNAVAILABLE" in status or "RESOURCE_EXHAUSTED" in status:
        return RequestRefused(f"Triton: {said}", retry_after=_RETRY_AFTER, status=503)
    if "INVALID_ARGUMENT" in status:
        return BadPayload(f"Triton: {said}")
    return error

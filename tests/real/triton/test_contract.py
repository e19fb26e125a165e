"""What the adapter calls, and what its stub pretends, is there in the real client."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
from tritonclient.utils import InferenceServerException

from streamkit.engines import GenerationRequest, Sampling
from streamkit.engines._triton._words import in_our_words, tensors, values_of
from streamkit.errors import BadPayload, RequestRefused
from tests.engines import triton_stub as stub


def public(a_class: type) -> set[str]:
    return {name for name in dir(a_class) if not name.startswith("_")}


def test_every_module_that_the_stub_stands_for_is_there() -> None:
    for name in stub.MODULES:
        importlib.import_module(name)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (stub.InferInput, tritonclient.grpc.InferInput),
        (stub.InferResult, tritonclient.grpc.InferResult),
        (stub.InferenceServerClient, tritonclient.grpc.aio.InferenceServerClient),
        (stub.InferenceServerException, InferenceServerException),
    ],
)
def test_the_stubs_members_are_the_clients(ours: type, theirs: type) -> None:
    assert public(ours) <= public(theirs)


def test_a_stream_is_iterated_and_cancelled() -> None:
    source = inspect.getsource(tritonclient.grpc.aio.InferenceServerClient.stream_infer)
    for name in ("__aiter__", "__anext__", "cancel"):
        assert f"def {name}" in source
    assert not inspect.isasyncgenfunction(tritonclient.grpc.aio.InferenceServerClient.stream_infer)


def test_every_tensor_has_the_type_of_its_numbers() -> None:
    every = Sampling(
        temperature=0.5, top_p=0.9, seed=3, frequency_penalty=0.1, presence_penalty=0.2
    )
    requests = [
        GenerationRequest(prompt="w", n=2, stop=("a", "b"), sampling=every),
        GenerationRequest(prompt="w", sampling=Sampling(temperature=0)),
    ]

    made: list[Any] = [one for request in requests for one in tensors(values_of(request, 3))]

    assert {one.shape()[0] for one in made} == {1}
    assert len({one.name() for one in made}) == 12


def test_an_error_says_who_has_to_act() -> None:
    busy = InferenceServerException("full", "StatusCode.UNAVAILABLE")
    wrong = InferenceServerException("no", "StatusCode.INVALID_ARGUMENT")
    broken = InferenceServerException("CUDA")

    assert isinstance(in_our_words(busy), RequestRefused)
    assert isinstance(in_our_words(wrong), BadPayload)
    assert in_our_words(broken) is broken

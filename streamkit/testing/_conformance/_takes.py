"""What of a request an engine says it heeds, tried out; and that the rest is refused by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import anyio

from streamkit.engines import GenerationRequest, Message, Sampling
from streamkit.errors import UnsupportedOption

from ._bench import Bench
from ._claims import Verdict

TOKENS: Final = 12
STOP_AT: Final = 0.5  # of a text, where the one to stop at is taken from
SEED: Final = 7
IDS: Final = (3, 4, 5)  # of any vocabulary
MESSAGES: Final = (Message("user", "one two"),)

_ASKS: Final[Mapping[str, Mapping[str, Any]]] = {
    "messages": {"messages": MESSAGES},
    "prompt_ids": {"prompt_ids": IDS},
    "stop": {"stop": ("never said \0",)},
    "temperature": {"sampling": Sampling(temperature=0.5)},
    "top_p": {"sampling": Sampling(top_p=0.5)},
    "seed": {"sampling": Sampling(seed=SEED)},
    "frequency_penalty": {"sampling": Sampling(frequency_penalty=0.5)},
    "presence_penalty": {"sampling": Sampling(presence_penalty=0.5)},
    "logprobs": {"sampling": Sampling(logprobs=1)},
}


class Answer(NamedTuple):
    """What came of a request: its text, its tokens, how many of them were rated, and its end."""

    text: str
    tokens: int
    rated: int
    reason: str | None


async def check_takes(bench: Bench) -> Verdict:
    """Each option that it takes is answered and shows; each that it does not take is refused."""
    takes, untried = bench.engine.capabilities.takes, bench.plan.untried
    wrong: list[str] = []
    for name, asked in _ASKS.items():
        if name in untried:
            continue
        if name not in takes and name != "messages":  # those become a prompt for any engine
            wrong += _refusal(bench, name, asked)
            continue
        try:
            answer = await _ask(bench, asked)
            wrong += await _SHOWS.get(name, _answers)(bench, answer)
        except Exception as error:  # noqa: BLE001 - is reported
            wrong.append(f"{name} raised {error!r}")
    if unknown := takes - set(_ASKS):
        wrong.append(f"takes {', '.join(sorted(unknown))}, which no request can ask for")
    if wrong:
        return Verdict("broken", "; ".join(wrong))
    heeded = ", ".join(sorted(takes - set(untried))) or "no options"
    left_out = f"; not tried: {', '.join(untried)}" if untried else ""
    return Verdict("seen", f"heeds {heeded}; refuses the others by name{left_out}")


def _refusal(bench: Bench, name: str, asked: Mapping[str, Any]) -> list[str]:
    try:
        bench.engine.open(_request(bench, asked))
    except UnsupportedOption:
        return []
    except Exception as error:  # noqa: BLE001 - is reported
        return [f"does not take {name}, and refuses it with {error!r}"]
    return [f"does not take {name}, and does not refuse it"]


def _request(bench: Bench, asked: Mapping[str, Any]) -> GenerationRequest:
    prompt = "" if {"messages", "prompt_ids"} & set(asked) else bench.plan.prompt
    fields: dict[str, Any] = {"prompt": prompt, "max_tokens": TOKENS, **asked}
    return GenerationRequest(**fields)


async def _ask(bench: Bench, asked: Mapping[str, Any]) -> Answer:
    text, tokens, rated, reason = "", 0, 0, None
    with anyio.fail_after(bench.plan.patience):
        async for chunk in bench.engine.open(_request(bench, asked)):
            text += chunk.text
            tokens += chunk.tokens
            rated += len(chunk.logprobs)
            reason = chunk.finish_reason or reason
    return Answer(text, tokens, rated, reason)


# -- what has to show ------------------------------------------------------------------------------


async def _answers(_: Bench, answer: Answer) -> list[str]:
    return [] if answer.reason else ["an answer had no end"]


async def _seed(bench: Bench, answer: Answer) -> list[str]:
    again = await _ask(bench, _ASKS["seed"])
    same = again.text == answer.text
    return [] if same else [f"seed gave {answer.text!r}, then {again.text!r}"]


async def _logprobs(_: Bench, answer: Answer) -> list[str]:
    told = answer.rated == answer.tokens
    return [] if told else [f"logprobs came for {answer.rated} of {answer.tokens} tokens"]


async def _stop(bench: Bench, _: Answer) -> list[str]:
    sampling = Sampling(seed=SEED) if "seed" in bench.engine.capabilities.takes else Sampling()
    whole, again = [await _ask(bench, {"sampling": sampling}) for _ in range(2)]
    if whole.text != again.text or not whole.text:
        return []  # it says something else each time: where to stop cannot be foreseen
    at = int(STOP_AT * len(whole.text))
    stop = whole.text[at : at + 2]
    cut = await _ask(bench, {"sampling": sampling, "stop": (stop,)})
    expected = whole.text[: whole.text.index(stop)]
    if (cut.text, cut.reason) == (expected, "stop"):
        return []
    return [f"stop at {stop!r} gave {cut.text!r} and {cut.reason!r}, not {expected!r} and 'stop'"]


Show: TypeAlias = Callable[[Bench, Answer], Awaitable[list[str]]]
_SHOWS: Final[Mapping[str, Show]] = {"seed": _seed, "logprobs": _logprobs, "stop": _stop}

"""How the next token is chosen: a request's ``GenerationConfig``, its seed, its likelihoods."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from streamkit.engines._base import TokenLogprob
from streamkit.engines._request import GenerationRequest, Sampling

LOGPROBS: Final = 20  # alternatives, at most

# Field of a GenerationConfig, its class in transformers, what generate() takes where nobody says
# anything, and what changes nothing; in the order in which generate() applies them.
_WARPERS: Final[tuple[tuple[str, str, Any, Any], ...]] = (
    ("temperature", "TemperatureLogitsWarper", 1.0, 1.0),
    ("top_h", "TopHLogitsWarper", None, None),
    ("top_k", "TopKLogitsWarper", 50, 0),
    ("top_p", "TopPLogitsWarper", 1.0, 1.0),
    ("min_p", "MinPLogitsWarper", None, None),
    ("typical_p", "TypicalLogitsWarper", 1.0, 1.0),
    ("epsilon_cutoff", "EpsilonLogitsWarper", 0.0, 0.0),
)


def check_sampling(sampling: Sampling) -> None:
    """Raise ValueError for a value that is out of its range."""
    if sampling.temperature is not None and not 0 <= sampling.temperature < float("inf"):
        raise ValueError(f"temperature must be at least 0, got {sampling.temperature}")
    if sampling.top_p is not None and not 0 < sampling.top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, got {sampling.top_p}")
    if sampling.logprobs is not None and not 0 <= sampling.logprobs <= LOGPROBS:
        raise ValueError(f"logprobs must be from 0 to {LOGPROBS}, got {sampling.logprobs}")


def config_of(model: Any, request: GenerationRequest, max_new_tokens: int) -> Any:
    """Return the model's ``GenerationConfig`` with what the request asks for."""
    sampling = request.sampling
    config = copy.deepcopy(model.generation_config)
    config.max_new_tokens = max_new_tokens
    config.num_beams = config.num_return_sequences = 1  # the choices are rows of the input
    config.return_dict_in_generate = False
    if config.pad_token_id is None:  # rows that have ended are filled with it; nobody reads them
        config.pad_token_id = next(iter(ends_of(config)), 0)
    if sampling.temperature == 0:
        _choose_likeliest(config)
    elif sampling.temperature is not None or sampling.top_p is not None:
        config.do_sample = True
        config.temperature = sampling.temperature or 1.0
        config.top_p = sampling.top_p or config.top_p
    return config


def ends_of(config: Any) -> frozenset[int]:
    """Return the tokens that end an answer."""
    ends = config.eos_token_id
    if ends is None:
        return frozenset()
    return frozenset([ends] if isinstance(ends, int) else ends)


def seeded(config: Any, seed: int, device: Any) -> SeededDraw:
    """Return what draws in the place of generate(), and have ``config`` take what it draws."""
    transformers = importlib.import_module("transformers")
    warpers: list[Any] = []
    for field, name, default, neutral in _WARPERS:
        value = getattr(config, field, None)
        value = default if value is None else value
        if value != neutral:
            warpers.append(getattr(transformers, name)(value))
    _choose_likeliest(config)
    return SeededDraw(warpers, seed, device)


def _choose_likeliest(config: Any) -> None:
    config.do_sample = False
    for field, _, default, _ in _WARPERS:  # else generate() warns that they are of no use now
        setattr(config, field, default)


class SeededDraw:
    """A logits processor that draws by itself, from a generator of its own.

    ``generate()`` draws from the process's one generator: a seed there would be another's, too, as
    soon as two generations run at once.
    """

    def __init__(self, warpers: list[Any], seed: int, device: Any) -> None:
        self._warpers = warpers
        self._torch: Any = importlib.import_module("torch")
        self._generator = self._torch.Generator(device).manual_seed(seed)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Return scores of which the drawn token has the highest."""
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        drawn = self._torch.multinomial(scores.softmax(-1), 1, generator=self._generator)
        return self._torch.full_like(scores, float("-inf")).scatter_(1, drawn, 0.0)


class Likelihoods:
    """A logits processor that keeps the scores of the last step, before temperature and the like.

    Args:
        top: Alternatives of each token.
        decode: The tokenizer's.
    """

    def __init__(self, top: int, decode: Callable[[Sequence[int]], str]) -> None:
        self._top = top
        self._decode = decode
        self._scores: Any = None

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Change nothing."""
        self._scores = scores
        return scores

    def of(self, row: int, token: int) -> tuple[TokenLogprob, ...]:
        """Return how likely a token was that has just been chosen."""
        logprobs = self._scores[row].float().log_softmax(-1)
        best = logprobs.topk(self._top)
        top = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        named = tuple((self._decode([other]), value) for other, value in top)
        return (TokenLogprob(self._decode([token]), logprobs[token].item(), named),)

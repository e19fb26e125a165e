"""Server-sent events: whatever text goes in, the framing holds, and it comes out again."""

import random

import pytest

from streamkit.asgi import EventEncoder, ServerEvent, encode_event
from streamkit.errors import UsageBug
from streamkit.testing import EventParser


def sent(*chunks: object) -> list[str]:
    """What a client of the standard's own parsing rules gets."""
    encoder = EventEncoder()
    data = b"".join([*map(encoder.encode, chunks), encoder.flush()])
    return [event.data for event in EventParser().feed(data)]


@pytest.mark.parametrize(
    "text",
    [
        "token",
        " a leading space",
        "",
        "two\nlines",
        "\n",
        "\n\n",
        "ends\n",
        "data: not a field",
        "event: done\n\ndata: forged",
        ": not a comment",
        "\u2028 and \u2029 and \x85 break no line here",
        "\x00\x1b\x7f",
        "\ufeff",
        "😀é漢",
    ],
)
def test_any_text_survives_as_one_event(text: str):
    assert sent(text) == [text]


@pytest.mark.parametrize("text", ["a\r\nb", "a\rb", "a\nb"])
def test_each_line_break_becomes_the_one_that_the_format_has(text: str):
    assert sent(text) == ["a\nb"]


def test_a_line_break_cut_in_two_by_a_chunk_border_is_still_one():
    assert "".join(sent("a\r", "\nb")) == "a\nb"
    assert "".join(sent("a\r", "", "\nb")) == "a\nb"
    assert "".join(sent("a\r", "b", "\nc")) == "a\nb\nc"


def test_bytes_are_decoded_across_chunk_borders():
    data = "😀é".encode()

    assert "".join(sent(*[bytes([byte]) for byte in data])) == "😀é"


def test_a_character_that_never_became_whole_shows_as_such():
    assert "".join(sent(b"ok", "😀".encode()[:2])) == "ok\ufffd"


def test_halves_of_a_surrogate_pair_cannot_break_the_encoding():
    assert sent("\ud83d\ude00") == ["😀"]
    assert sent("\ud83d") == ["\ufffd"]
    assert "".join(sent("a\ud83d", "\ude00b")) == "a😀b"
    assert "".join(sent("a\ud83d", "b", "\ude00")) == "a\ufffdb\ufffd"
    assert "".join(sent("\ud83d", b"b")) == "b\ufffd"


@pytest.mark.parametrize("seed", range(20))
def test_any_cut_of_any_text_gives_the_text_back(seed: int):
    chance = random.Random(seed)
    text = "".join(
        chance.choice(["a", " ", "\n", "\r", "\r\n", "é", "😀", "data: "]) for _ in range(60)
    )
    data, pieces = text.encode(), []
    while data:
        cut = chance.randint(1, 5)
        pieces.append(data[:cut])
        data = data[cut:]

    assert "".join(sent(*pieces)) == text.replace("\r\n", "\n").replace("\r", "\n")


def test_other_values_are_sent_as_json():
    assert sent({"token": "é", "n": 1}, [1, None], 3) == ['{"token":"é","n":1}', "[1,null]", "3"]


def test_a_value_that_json_cannot_say_is_the_sources_error():
    with pytest.raises(ValueError, match="not JSON compliant"):
        EventEncoder().encode(float("nan"))
    with pytest.raises(TypeError, match="set is not JSON serializable"):
        EventEncoder().encode({1})


def test_an_event_carries_its_fields():
    data = encode_event(ServerEvent(data="x", event="delta", id="7", retry=1500))

    assert data == b"event: delta\r\nid: 7\r\nretry: 1500\r\ndata: x\r\n\r\n"


@pytest.mark.parametrize("field", [{"id": "a\nb"}, {"event": "a\rb"}, {"id": "a\0"}])
def test_a_field_that_would_break_the_framing_is_refused(field):
    with pytest.raises(UsageBug, match="cannot hold a line break or NUL"):
        ServerEvent(data="x", **field)


def test_a_negative_retry_is_refused():
    with pytest.raises(UsageBug, match="retry must be 0 or more milliseconds, got -1"):
        ServerEvent(data="x", retry=-1)

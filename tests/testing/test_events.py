"""Server-sent events survive any cut between two bytes."""

import pytest

from streamkit.testing import EventParser, ServerEvent

STREAM = (
    "\ufeff: hello\n"
    "data: one\n\n"
    "event: note\r\ndata: two\r\ndata:  lines\r\nid: 7\r\n\r\n"
    "data: naïve 🦜\r\r"
    "retry: 10\nunknown: x\n\n"
    "event: forgotten\n\n"
    "data\n\n"
).encode()
EVENTS = [
    ServerEvent(data="one"),
    ServerEvent(data="two\n lines", event="note", id="7"),
    ServerEvent(data="naïve 🦜", id="7"),
    ServerEvent(data="", id="7"),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_do_not_depend_on_where_the_bytes_are_cut(size: int):
    parser = EventParser()
    events: list[ServerEvent] = []
    for start in range(0, len(STREAM), size):
        events += parser.feed(STREAM[start : start + size])

    assert events == EVENTS
    assert parser.comments == ["hello"]


def test_an_event_is_not_there_before_its_empty_line():
    parser = EventParser()

    assert parser.feed(b'data: {"n": 1}\n') == []
    [event] = parser.feed(b"\n")
    assert event.json() == {"n": 1}


def test_an_id_with_a_null_is_ignored():
    assert EventParser().feed(b"id: a\0b\ndata: x\n\n") == [ServerEvent(data="x")]

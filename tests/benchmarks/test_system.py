"""The crowd is the same in every run, and counts what it was sent."""

from benchmarks.apps.tokens import framed
from benchmarks.measures.system import DONE, MAX_TOKENS, Person, crowd


def test_the_same_crowd_comes_each_time():
    assert crowd(100) == crowd(100)


def test_three_of_ten_leave_half_of_them_in_the_midst_of_their_answer():
    people = crowd(1_000)

    assert sum(not person.stays for person in people) == 300
    assert sum(person.leaves_after is not None for person in people) == 150
    assert all(person.leaves_after < MAX_TOKENS for person in people if person.leaves_after)


def test_a_person_counts_tokens_and_not_the_last_event():
    person = Person()
    for byte in b"HTTP/1.1 200 OK\r\n\r\n" + framed("a").encode() * 3 + DONE + b"\r\ndata: {}":
        person.received.append(byte)

    assert person.tokens == 3
    assert person.done

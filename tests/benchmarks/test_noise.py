"""A machine that is not quiet is not compared on, unless somebody says so."""

import pytest

from benchmarks import command
from benchmarks.noise import LIMIT, Noise, TooNoisy, Watch

QUIET = Noise(stolen=0.0, unevenness=0.02, load=0.1)
LOUD = Noise(stolen=0.4, unevenness=0.02, load=2.5)


def watch(*noises: Noise, tolerant: bool = False) -> Watch:
    return Watch(tolerant=tolerant, measure=iter(noises).__next__)


def test_a_noisy_machine_is_refused_with_what_was_seen():
    with pytest.raises(TooNoisy, match=r"40% of the cores .* the limit is 10%"):
        watch(LOUD, LOUD).look()


def test_one_hiccup_is_no_neighbour():
    quiet = watch(LOUD, QUIET)

    quiet.look()

    assert not quiet.noisy


def test_who_says_even_if_noisy_gets_figures_that_are_marked():
    tolerant = watch(LOUD, LOUD, tolerant=True)

    tolerant.look()

    assert tolerant.noisy


def test_uneven_repetitions_are_noise_too():
    uneven = Noise(stolen=0.0, unevenness=2 * LIMIT, load=0.0)

    with pytest.raises(TooNoisy):
        watch(uneven, uneven).look()


def test_the_command_refuses_with_a_status_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def refuse(_: object) -> None:
        watch(LOUD, LOUD).look()

    monkeypatch.setitem(command.MEASURES, "tokens", refuse)

    status = command.main(["--only", "tokens"])

    assert status == command.NOISY != 0
    assert "too noisy" in capsys.readouterr().err

"""The pytest plugin: which loop a test gets, and that it leaves other people's suites alone."""

import textwrap

import pytest

pytest_plugins = ["pytester"]
# Runs a whole pytest in this process, with loops and files of its own.
pytestmark = pytest.mark.blocks_the_loop

WHICH_LOOP = """
import asyncio
import pytest

def loop_name():
    return type(asyncio.get_running_loop()).__module__.split(".")[0]
"""


@pytest.fixture
def run(pytester: pytest.Pytester):
    def run(tests: str, *, ini: str = "", conftest: str = "") -> pytest.RunResult:
        pytester.makeini(
            f"[pytest]\nasyncio_mode=auto\nasyncio_default_fixture_loop_scope=function\n{ini}"
        )
        pytester.makeconftest(conftest)
        pytester.makepyfile(WHICH_LOOP + textwrap.dedent(tests))
        return pytester.runpytest_inprocess("-q", "-p", "no:cacheprovider")

    return run


def test_a_suite_that_does_not_opt_in_keeps_its_loop_and_sees_no_hook(run):
    result = run(
        """
        async def test_loop(request):
            assert loop_name() == "asyncio"
            assert not request.config.hook.pytest_asyncio_loop_factories.get_hookimpls()

        @pytest.mark.realtime
        async def test_the_marker_alone_changes_nothing():
            assert loop_name() == "asyncio"
        """
    )

    result.assert_outcomes(passed=2)


def test_the_ini_option_gives_every_test_virtual_time_but_realtime_ones(run):
    result = run(
        """
        async def test_virtual():
            assert loop_name() == "streamkit"

        @pytest.mark.realtime
        async def test_real():
            assert loop_name() == "asyncio"

        def test_without_a_loop():
            pass
        """,
        ini="streamkit_virtual_time=true",
    )

    result.assert_outcomes(passed=3)


def test_a_single_test_opts_in_by_marker(run):
    result = run(
        """
        async def test_before():
            assert loop_name() == "asyncio"

        @pytest.mark.virtual_time
        async def test_virtual():
            assert loop_name() == "streamkit"

        async def test_after():
            assert loop_name() == "asyncio"
        """
    )

    result.assert_outcomes(passed=3)


def test_the_closest_marker_wins(run):
    result = run(
        """
        pytestmark = pytest.mark.virtual_time

        @pytest.mark.realtime
        async def test_real():
            assert loop_name() == "asyncio"

        class TestReal:
            pytestmark = pytest.mark.realtime

            @pytest.mark.virtual_time
            async def test_virtual(self):
                assert loop_name() == "streamkit"
        """
    )

    result.assert_outcomes(passed=2)


def test_realtime_runs_once_on_each_loop_that_it_names(run):
    result = run(
        """
        seen = []

        @pytest.mark.realtime("asyncio", "uvloop")
        async def test_both():
            seen.append(loop_name())

        def test_seen():
            assert seen == ["asyncio", "uvloop"]
        """,
        ini="streamkit_virtual_time=true",
    )

    result.assert_outcomes(passed=3)


def test_an_unknown_loop_is_an_error_that_names_the_known_ones(run):
    result = run(
        """
        @pytest.mark.realtime("gevent")
        async def test_it():
            pass
        """,
        ini="streamkit_virtual_time=true",
    )

    result.stdout.fnmatch_lines(["*realtime('gevent'): known loops are asyncio, uvloop*"])


def test_tests_that_do_not_opt_in_keep_the_loops_of_their_own_hook(run):
    result = run(
        """
        async def test_own():
            assert loop_name() == "conftest"

        @pytest.mark.virtual_time
        async def test_virtual():
            assert loop_name() == "streamkit"

        async def test_own_again():
            assert loop_name() == "conftest"
        """,
        conftest="""
        import asyncio

        class OwnLoop(asyncio.SelectorEventLoop):
            pass

        def pytest_asyncio_loop_factories(config, item):
            return {"own": OwnLoop}
        """,
    )

    result.assert_outcomes(passed=3)


def test_an_opt_in_that_nothing_can_honour_is_an_error_and_not_silence(pytester: pytest.Pytester):
    pytester.makeini("[pytest]\nstreamkit_virtual_time = true\n")
    pytester.makepyfile("def test_nothing(): ...")

    result = pytester.runpytest_inprocess("-q", "-p", "no:asyncio", "-p", "no:cacheprovider")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*virtual time needs pytest-asyncio 1.4 or newer*"])

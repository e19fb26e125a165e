"""What of the adapter for llama.cpp needs no llama.cpp; the rest is in tests/real/llama_cpp."""

from __future__ import annotations

import sys
from collections.abc import Generator
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from streamkit.engines import Chunk, LlamaCppEngine, build, engine_options, known_engine
from streamkit.engines._stop import cut_at
from streamkit.errors import MissingPackage
from streamkit.server import cli


@pytest.fixture
def not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by whoever looks for it, and not importable: nothing may import it so early."""

    class Finder:
        @staticmethod
        def find_spec(name: str, *_: object) -> ModuleSpec | None:
            return ModuleSpec(name, None) if name == "llama_cpp" else None

    monkeypatch.delitem(sys.modules, "llama_cpp", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])


# -- the command line ------------------------------------------------------------------------------


def test_its_options_are_those_of_a_llama() -> None:
    assert [option.name for option in engine_options("llama_cpp")] == [
        "model",
        "n_ctx",
        "n_batch",
        "n_threads",
        "n_threads_batch",
        "n_gpu_layers",
        "seed",
        "flash_attn",
        "use_mmap",
        "args",
    ]


def test_without_a_model_it_says_how_one_is_named() -> None:
    with pytest.raises(ValueError, match=r"--engine-option model=PATH\.gguf"):
        build("llama_cpp")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_ctx": "-1"}, "option n_ctx must be a whole number from 0 to"),
        ({"n_gpu_layers": "-2"}, "option n_gpu_layers must be a whole number from -1 to"),
        ({"seed": "4294967296"}, "option seed must be a whole number from 0 to 4294967295"),
        ({"args": "[1]"}, "option args must be a JSON object"),
        ({"args": "{"}, "option args must be a JSON object"),
        ({"model_path": "x"}, "has no option 'model_path'; its options: args, flash_attn"),
    ],
)
def test_a_bad_option_is_refused_with_what_was_expected(options: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build("llama_cpp", {"model": "x.gguf", **options})


@pytest.mark.usefixtures("installed")
def test_a_file_that_is_not_there_is_named_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no file '.*/no\.gguf'"):
        build("llama_cpp", {"model": str(tmp_path / "no.gguf")})


@pytest.mark.usefixtures("installed")
def test_it_is_made_without_an_import_of_the_package(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(b"")

    engine = build("llama_cpp", {"model": str(model), "args": '{"n_ctx": 512}'})

    assert engine.name == "llama_cpp"
    assert engine.capabilities == known_engine("llama_cpp").capabilities
    assert known_engine("llama_cpp").installed


@pytest.mark.usefixtures("not_installed")
def test_a_missing_package_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    option = f"--engine-option=model={tmp_path}/m.gguf"

    assert cli.main(["serve", "--engine=llama_cpp", option]) == 2
    assert capsys.readouterr().err == (
        "streamkit: engine llama_cpp needs the package llama_cpp, which is not installed: "
        "pip install llama-cpp-python\n"
    )


@pytest.mark.usefixtures("not_installed")
async def test_to_load_it_without_the_package_says_the_same() -> None:
    with pytest.raises(MissingPackage, match="pip install llama-cpp-python"):
        await LlamaCppEngine({"model_path": "x.gguf"}).load()


# -- texts to stop at, in a thread -----------------------------------------------------------------


class Pulled:
    """Chunks that are made when they are asked for, and whether anyone asked for more."""

    def __init__(self, *pieces: str) -> None:
        self.pieces = pieces
        self.asked = 0
        self.closed = False

    def chunks(self) -> Generator[Chunk]:
        try:
            for number, piece in enumerate(self.pieces):
                self.asked += 1
                last = number + 1 == len(self.pieces)
                yield Chunk(piece, finish_reason="length" if last else None)
        finally:
            self.closed = True


@pytest.mark.parametrize(
    ("pieces", "stop", "text", "asked", "reason"),
    [
        pytest.param("abcdef", (), "abcdef", 6, "length", id="none"),
        pytest.param("abcdef", ("cd",), "ab", 4, "stop", id="across two chunks"),
        pytest.param("abcdef", ("a",), "", 1, "stop", id="at once"),
        pytest.param("aabaabx", ("aabx",), "aab", 7, "stop", id="after a beginning that failed"),
        pytest.param("abcdef", ("ef!",), "abcdef", 6, "length", id="a beginning at the end"),
        pytest.param("abcdef", ("cdx", "de"), "abc", 5, "stop", id="the second of two"),
        pytest.param(["", "x", "", "yz"], ("y",), "x", 4, "stop", id="empty chunks"),
    ],
)
def test_nothing_is_pulled_beyond_a_text_to_stop_at(
    pieces: str | list[str], stop: tuple[str, ...], text: str, asked: int, reason: str
) -> None:
    source = Pulled(*pieces)

    chunks = list(cut_at(source.chunks(), stop))

    assert "".join(chunk.text for chunk in chunks) == text
    assert sum(chunk.tokens for chunk in chunks) == source.asked == asked
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == [reason]
    assert chunks[-1].finish_reason == reason
    assert source.closed


def test_closing_closes_what_is_pulled() -> None:
    source = Pulled("a", "b", "c")
    chunks = cut_at(source.chunks(), ("x",))
    next(chunks)

    chunks.close()

    assert source.closed
    assert source.asked == 1

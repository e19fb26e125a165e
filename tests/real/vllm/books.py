"""Looking into vLLM: its front end's registries, its KV cache, its processes."""

from __future__ import annotations

from typing import Any

import psutil

REGISTRIES = ("request_states", "parent_requests", "external_req_ids")


def sizes(llm: Any) -> dict[str, int]:
    return {name: len(getattr(llm.output_processor, name)) for name in REGISTRIES}


async def check_empty(llm: Any) -> None:
    """Nothing in any registry, and no KV block in use (it is True only then)."""
    assert sizes(llm) == dict.fromkeys(REGISTRIES, 0)
    assert await llm.reset_prefix_cache()


def kill_core(pid: int) -> None:
    """SIGKILL the engine core of a process, as the kernel does it when memory runs out."""
    processes = psutil.Process(pid).children(recursive=True)
    cores = [one for one in processes if "EngineCore" in "".join([*one.cmdline(), one.name()])]
    assert cores, processes
    for core in cores:
        core.kill()

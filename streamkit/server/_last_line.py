"""What the log says last: the books of the whole life of the process, when nobody can ask it."""

from __future__ import annotations

from streamkit.runner import Runner


def last_line(runner: Runner) -> str:
    """``key=value`` pairs: requests by how they ended, tokens, and the engine's own count of them.

    ``unproved`` are the requests that were cut short and whose stop the engine has not proved.
    """
    totals = runner.statistics()
    sums = [*totals.ended.values(), totals.live]
    pairs: dict[str, object] = {
        "received": totals.received,
        "refused": sum(totals.refused.values()),
        "finished": totals.finished,
        "cancelled": totals.cancelled,
        "failed": totals.failed,
        "running": totals.running,
        "unproved": totals.quarantined,
        "produced": sum(each.produced for each in sums),
        "delivered": sum(each.delivered for each in sums),
        "undelivered": sum(each.undelivered for each in sums),
        "violations": totals.violations,
    }
    if (engine := runner.served.statistics()) is not None:
        pairs |= {"engine_running": engine.running, "engine_tokens": engine.tokens}
    return " ".join([f"{key}={value}" for key, value in pairs.items()])

"""The results as a person reads them: the table, the comparison, the books."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final

from streamkit._core import Phase

from ._results import After, Cut, Results, Run, problems

_ORDER: Final = [phase.value for phase in Phase]
_FIRST: Final = 34  # width of the first column


def report(results: Results) -> Iterator[str]:
    """Yield the lines; the last ones say whether all is well."""
    yield from _cuts(results)
    yield ""
    yield from _comparison(results)
    yield ""
    yield from _books(results)
    yield ""
    yield from _verdict(results)


def _cuts(results: Results) -> Iterator[str]:
    yield "From the client's close() to …"
    yield (
        f"{'cut short while':{_FIRST}}{'n':>4}  {'detected':>17}  {'engine told':>17}  "
        f"{'proved stopped':>17}"
    )
    yield f"{'':{_FIRST}}{'':>4}" + f"  {'median':>8} {'max':>8}" * 3
    rows = _by_row(results.cuts)
    for row in rows:
        cuts = rows[row]
        columns = ([c.detected for c in cuts], [c.told for c in cuts], [c.proved for c in cuts])
        yield f"{row:{_FIRST}}{len(cuts):>4}" + "".join(f"  {_spread(each)}" for each in columns)
    ways = ", ".join(sorted({cut.leave for cut in results.cuts}))
    proofs = ", ".join(sorted({cut.proof or "none" for cut in results.cuts}))
    yield f"ways of leaving: {ways}; proof: {proofs}"
    yield "For one that stays and reads no more: from the start of the write that was blocked."


def _comparison(results: Results) -> Iterator[str]:
    ours, others = results.streamkit, results.plain
    runs = (ours, *others)
    yield "The same clients and engines, by the engines' own logs"
    yield f"{'':{_FIRST}}" + "".join(f"{run.name:>22}" for run in runs)
    for scene in ours.work:
        work = [run.work[scene] for run in runs]
        yield _line(f"{scene} engine: tokens", runs, [f"{each.tokens:,}" for each in work])
        yield _line(f"{scene} engine: steps", runs, [f"{each.steps:,}" for each in work])
    yield _line("engines at work, together", runs, [_seconds(run.engine_seconds) for run in runs])
    yield _line("all done, engines idle after", runs, [_seconds(run.idle_after) for run in runs])
    yield _line("who queued and stayed: done after", runs, [_seconds(run.finish) for run in runs])
    yield _line("who queued and stayed: tokens/s", runs, [_number(run.speed) for run in runs])
    yield "tokens made for those who left"
    rows = _by_row(results.cuts)
    for row, cuts in rows.items():
        made = [sum(run.by_request.get(cut.id, 0) for cut in cuts) for run in runs]
        yield _line(f"  {row}", runs, [f"{tokens:,}" for tokens in made])
    for run in others:
        yield _saved(ours, run)


def _saved(ours: Run, other: Run) -> str:
    tokens, seconds = other.tokens - ours.tokens, other.engine_seconds - ours.engine_seconds
    steps = sum(other.work[scene].steps - ours.work[scene].steps for scene in ours.work)
    text = (
        f"saved against {other.name!r}: {_share(seconds, other.engine_seconds)} of the engines' "
        f"time ({steps:,} steps, {tokens:,} tokens)"
    )
    if ours.finish and other.finish:
        text += f"; who queued and stayed had its answer {other.finish / ours.finish:.1f}× as soon"
    return text


def _books(results: Results) -> Iterator[str]:
    yield "The books"
    for books in results.totals:
        yield (
            f"  {books.scene:8} {books.started} started = {books.finished} finished + "
            f"{books.cancelled} cancelled + {books.failed} failed + {books.running} running"
        )
        yield (
            f"  {'':8} {books.produced:,} tokens produced = {books.delivered:,} delivered + "
            f"{books.undelivered:,} undelivered; the engine's own log: {books.engine_tokens:,}"
        )
    yield from _outside(results.after)


def _outside(servers: Sequence[After]) -> Iterator[str]:
    """What nobody inside the servers can embellish."""
    held = {
        "requests": sum(after.in_flight for after in servers),
        "slots": sum(after.running for after in servers),
        "queue entries": sum(after.queued for after in servers),
    }
    left = [after.left for after in servers if after.left is not None]
    for what in ("threads", "sockets", "files") if left else ():
        held[what] = sum(getattr(each, what) for each in left)
    counts = ", ".join(f"{count} {what}" for what, count in held.items())
    unseen = "" if left else " (this system does not show a process's threads and sockets)"
    yield f"  leaked: {counts}, seen from outside{unseen}"
    served = ", ".join("not served" if a.canary is None else _time(a.canary) for a in servers)
    ended = ", ".join(str(after.status) for after in servers)
    yield f"  a new request served at once, in one step of its engine: {served}"
    yield f"  exit status after SIGTERM: {ended}"


def _verdict(results: Results) -> Iterator[str]:
    wrong = problems(results)
    for problem in wrong:
        yield f"WRONG: {problem}"
    if not wrong:
        yield (
            f"All books balance, nothing leaked: {len(results.cuts)} cancels of "
            f"{results.clients} clients, in {results.seconds:.0f} s."
        )


def _by_row(cuts: Sequence[Cut]) -> dict[str, list[Cut]]:
    rows: dict[str, list[Cut]] = {}
    for cut in cuts:
        rows.setdefault(cut.row, []).append(cut)
    return {row: rows[row] for row in sorted(rows, key=_place)}


def _place(row: str) -> tuple[int, str]:
    return _ORDER.index(row.partition(",")[0]), row


def _line(title: str, runs: Sequence[Run], cells: Sequence[str]) -> str:
    return f"{title:{_FIRST}}" + "".join(f"{cell:>22}" for cell in cells)


def _spread(times: Sequence[float | None]) -> str:
    known = [time for time in times if time is not None]
    if not known:
        return f"{'–':>8} {'–':>8}"
    return f"{_time(median(known)):>8} {_time(max(known)):>8}"


def _time(seconds: float) -> str:
    if abs(seconds) >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.{1 if abs(seconds) < 0.1 else 0}f} ms"


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.2f} s"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "0%"

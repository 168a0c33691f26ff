"""Bar 1: the number of times that a token is computed, by the server's own counters."""

from __future__ import annotations

from benchmarks.kv import unique
from benchmarks.sglang.common import PROBLEMS, Options, flush, its_hub, plan, solving, verdict
from benchmarks.sglang.servers import Counted, counted
from tts_tui import Plan
from tts_tui.backends.remote.http import Http

BAR = 1.05
COLD_PROBLEMS = 2
"""Number of problems without reuse, where everything takes many times as long and the ratio varies little."""
HEAD = "  {:<32} {:>8} {:>6} {:>8} {:>9} {:>7} {:>10}  {}"


async def run(options: Options) -> None:
    """Print a row for each strategy, with the cache and without, and one for its_hub."""
    problems = PROBLEMS[: options.problems]
    print("KV reuse: (prompt tokens computed + completion tokens) / unique tokens of the trees; the cache empty before")
    print(HEAD.format("", "problems", "steps", "unique", "computed", "ratio", "unreused", "server's counters"))
    worst = 0.0
    for strategy in ("beam", "dvts", "best-of-n"):
        worst = max(worst, await ours(options.url, strategy, problems, options))
    verdict("worst ratio", worst, BAR)
    if options.cold_url:
        for strategy in ("beam", "dvts", "best-of-n"):
            await ours(options.cold_url, strategy, problems[:COLD_PROBLEMS], options, " (radix cache off)")
    if options.its_hub:
        await theirs(options, problems[: max(2, options.problems // 3)])
    print("  Nothing was written ahead here; what that costs is in the bar `speculation`.")


async def ours(url: str, strategy: str, problems: tuple[str, ...], options: Options, note: str = "") -> float:
    """Solve the problems, four at a time, and return the ratio."""
    async with solving(url) as (solver, policy):
        await flush(policy.http)
        before = await counted(policy.http)
        asked = plan(strategy, total_tokens=options.total_tokens)
        results = [result async for result in solver.solve_many(problems, asked, parallel=4)]
        server = await counted(policy.http) - before
        counts = [result.tree.counts for result in results]
        tokens = unique(results)
        prompts = sum(count.prompt_computed for count in counts), sum(count.prompt_cached for count in counts)
        written = sum(count.completion for count in counts)
        own = Counted(sum(prompts), prompts[1], written)
        steps = sum(len(result.tree.nodes) - 1 for result in results)
        resent = (own.prompt + written) / tokens
        same = "the same" if own == server else f"DIFFER: ours {own}, theirs {server}"
        ratio = own.computed / tokens
        print(
            HEAD.format(
                f"{strategy}{note}", len(results), steps, tokens, own.computed, f"{ratio:.3f}", f"{resent:.2f}", same
            ),
            flush=True,
        )
        return ratio


async def theirs(options: Options, problems: tuple[str, ...]) -> None:
    """Print the row of its_hub's beam search, by the server's counters alone."""
    like: Plan = plan("beam", total_tokens=options.total_tokens)
    http = Http(options.url)
    await http.open()
    async with solving(options.url) as (_, policy):
        prompts = sum([len((await policy.prompt(problem)).ids) for problem in problems])
    async with its_hub(options, options.url, problems, like) as hub:
        await flush(http)
        before = await counted(http)
        for _ in problems:
            await hub.solve()
        server = await counted(http) - before
    await http.close()
    tokens = prompts + server.generation
    ratio, resent = server.computed / tokens, (server.prompt + server.generation) / tokens
    row = HEAD.format(
        "its_hub 1.2 beam", len(problems), "", tokens, server.computed, f"{ratio:.3f}", f"{resent:.2f}", "only these"
    )
    print(row)
    print("  its_hub's unique tokens: each prompt once and every token sampled, so what it computes again is text that")
    print("  became other tokens on the way through its chat messages, and siblings that came before their cache.")

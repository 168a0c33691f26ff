"""Plain reference implementations of votes, beam search and DVTS, after the public implementations.

They are sequential, use lists and tuples, and share no code with the package except the seed of a step. A node is a
`Path`.

Where the package deliberately differs from an implementation (docs/explanation/differences.md), the reference follows
the implementation; `ours=True` selects the documented difference in the order of equal values.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

from tts_tui.search.generation import step_seed

SEPARATOR = "\n\n"


@dataclass(eq=False)
class Path:
    address: tuple[tuple[int, int], ...] = ()
    texts: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    cut: bool = False
    children: list[Path] = field(default_factory=list)
    terminated: bool = False

    def __lt__(self, other: Path) -> bool:
        return self.last < other.last

    @property
    def last(self) -> float:
        return self.scores[-1] if self.scores else -1.0

    @property
    def before(self) -> float:
        return self.scores[-2] if len(self.scores) > 1 else -1.0

    @property
    def eos(self) -> bool:
        return bool(self.texts) and not self.cut and not self.texts[-1].endswith(SEPARATOR)

    @property
    def over(self) -> bool:
        """True if the official code considers the path finished."""
        return "\\boxed" in self.texts[-1] or not self.texts[-1].endswith(SEPARATOR)


class World:
    """A scripted policy and PRM, with a record of the visited steps and of each beam."""

    def __init__(self, script: Callable, rule: Callable, n: int, m: int, depth: int, seed: int = 0) -> None:
        self.script, self.rule, self.n, self.m, self.depth, self.seed = script, rule, n, m, depth, seed
        self.visited: dict[tuple, str] = {}
        self.fronts: list[list[tuple]] = []

    def sample(self, path: Path, slot: int, group: int) -> Path:
        address = (*path.address, (group, slot))
        text = self.script(path.texts, step_seed(self.seed, list(address)))
        return self.child(path, address, text)

    def child(self, path: Path, address: tuple, text: str) -> Path:
        cut, text = text.endswith("~"), text.removesuffix("~")
        self.visited[address] = text
        said = tuple(t for t in (*path.texts, text) if t.strip())
        scores = (*path.scores, self.rule(said)) if text.strip() else path.scores
        return Path(address, (*path.texts, text), scores, cut)


def official(world: World, first: int, beams: int, group: int = 0, *, ours: bool = False) -> list[Path]:
    def legal(path: Path, n: int, start: int, force: bool = False) -> list[Path]:
        """Return new steps. The official code keeps one of those whose stripped texts are equal."""
        kept: dict[tuple[str, bool], Path] = {}
        forced: list[Path] = []
        for slot in range(start, start + n):
            new = world.sample(path, slot, group)
            forced.append(new)
            said = new.texts[-1].strip()
            if said and not new.cut:
                kept.setdefault(
                    (said, new.over), new
                )  # that the end of the answer counts too is the package's addition
        return forced if force else list(kept.values())

    def step(path: Path) -> None:
        """Terminate the path, or expand it."""
        if path.over or len(path.texts) == world.depth:
            path.terminated = True
            return
        for attempt in range(3):
            path.children = legal(path, world.m, attempt * world.m)
            if path.children:
                return
        path.terminated = True

    root = Path()
    root.children = legal(root, first, 0) or legal(root, first, first, force=True)
    top, done, k, pushed = [root], [], beams, 0
    for _ in range(world.depth + 1):
        heap: list[tuple[float, float, int, Path]] = []
        for node in top:
            if node.terminated:
                done.append(node)
                if len(done) == beams:
                    break
            elif len(done) < beams:
                k = beams - len(done)
                for child in sorted(node.children, key=lambda c: c.last, reverse=True)[:k]:
                    pushed += 1
                    heapq.heappush(heap, (-child.last, -child.before, pushed if ours else 0, child))
        if len(done) == beams:
            break  # the official code extends its other beams once more, without using the result
        top = [entry[-1] for entry in heapq.nsmallest(k, heap)]
        if top:
            world.fronts.append([node.address for node in top])
        for node in top:
            step(node)
    return done


def official_dvts(world: World, *, ours: bool = False) -> list[Path]:
    return [path for group in range(world.n // world.m) for path in official(world, world.m, 1, group, ours=ours)]


def roll(world: World, path: Path, slot: int, group: int) -> Path:
    """Extend the path to the end of the answer; blank pieces belong to the step after them."""
    address = (*path.address, (group, slot))
    seed = step_seed(world.seed, list(address))
    raw, lead = path.texts, ""
    while True:
        text = world.script(raw, seed)
        raw = (*raw, text.removesuffix("~"))
        if text.endswith(SEPARATOR) and not text.strip():
            lead += text
            continue
        path = world.child(path, address, lead + text)
        if not text.endswith(SEPARATOR):
            return path
        address, lead = (*address, (group, 0)), ""


def sal_beam(world: World, aggregate: Callable) -> list[Path]:
    active, done = [Path()], []
    for it in range(world.depth):
        copies = (active * (world.n // len(active) + 1))[: world.n]
        counts: dict[int, int] = {}
        new = []
        for beam in copies:
            slot = counts.get(id(beam), 0)
            counts[id(beam)] = slot + 1
            new.append(world.sample(beam, slot, 0) if it < world.depth - 1 else roll(world, beam, slot, 0))
        done += [path for path in new if path.eos or path.cut]
        going = [path for path in new if not (path.eos or path.cut)]
        if not going:
            break
        values = [aggregate(path.scores) for path in going]
        top = sorted(range(len(going)), key=values.__getitem__)[-(world.n // world.m) :]  # like NumPy's argsort
        active = [path for place, path in enumerate(going) if place in top]
        world.fronts.append([path.address for path in active])
    return done[: world.n]


def sal_dvts(world: World, aggregate: Callable) -> list[Path]:
    out = []
    for group in range(world.n // world.m):
        beam, siblings = Path(), []
        for it in range(world.depth):
            last = it == world.depth - 1
            make = roll if last else (lambda w, p, s, g: w.sample(p, s, g))
            siblings = [make(world, beam, slot, group) for slot in range(world.m)]
            values = [aggregate(path.scores) for path in siblings]
            beam = siblings[values.index(max(values))]  # like NumPy's argmax
            world.fronts.append([beam.address])
            if beam.eos or beam.cut or "boxed{" in beam.texts[-1]:
                break
        out += siblings
    return out


def vote(answers: list[str], values: list[list[float]], score: str, how: str) -> str:
    """Return the winner of an official vote: exact strings, [] scores -1, the first of equals wins."""
    if how == "majority":
        return max(answers, key=lambda a: (answers.count(a), -answers.index(a)))
    rules = {"min": min, "last": lambda v: v[-1], "avg": lambda v: sum(v) / len(v)}
    numbers = [rules[score](v) if v else -1.0 for v in values]
    if how == "prm-max":
        return answers[numbers.index(max(numbers))]
    sums: dict[str, float] = {}
    for answer, number in zip(answers, numbers, strict=True):
        sums[answer] = sums.get(answer, 0.0) + number
    return max(sums, key=lambda a: sums[a])

"""Searches that a simulated user steers at given moments, on scripted models."""

from __future__ import annotations

import asyncio
import random

from tests.scripted import ScriptedPolicy, ScriptedPRM, encode
from tests.strategies.test_strategies import random_rule, random_script
from tts_tui import Node, Plan, Solver, Usage
from tts_tui.errors import UsageError

KINDS = ("expand", "write", "cut", "cut writing", "restore", "change", "vote", "pause", "step", "round", "go on")
PATIENCE = 60
"""The number of event loop iterations without an event after which a paused search is resumed."""


class Talkative(ScriptedPolicy):
    """A policy that encodes steps given as text, and has spare capacity for speculation."""

    spare = 1000

    async def encode(self, text):
        await asyncio.sleep(0)
        return tuple(encode(text))


class Person:
    """A simulated user who performs `acts` in a search.

    An act consists of the number of an event, the kind of action, a number that determines the node, and a flag: True
    to act within that event's callback, False to act after it.
    """

    def __init__(self, acts):
        self.acts = sorted(acts, key=lambda act: act[0])
        self.events = []
        self.done = []
        self.refused = []
        self.broken = []
        self.search = None
        self._keeper = None

    def steer(self, search):
        self.search = search
        self._keeper = asyncio.create_task(self._keep())

    def __call__(self, event):
        self.events.append(event)
        while self.search is not None and self.acts and self.acts[0][0] <= len(self.events):
            _, kind, pick, inside = self.acts.pop(0)
            if inside:
                self.act(kind, pick)
            else:
                asyncio.get_running_loop().call_soon(self.act, kind, pick)

    def act(self, kind, pick):
        try:
            self._act(kind, random.Random(pick))
            self.done.append(kind)
        except UsageError as error:
            self.refused.append(str(error))
        except BaseException as error:
            self.broken.append(error)

    def _act(self, kind, chance):
        search, hand, tree = self.search, self.search.steering, self.search.tree
        node = chance.choice(tree.nodes)
        match kind:
            case "expand":
                hand.expand(node, chance.choice([None, 1, 3]))
            case "write":
                hand.write(node, chance.choice(["mine", "so \\boxed{7}", "one\n\n"]))
            case "cut":
                hand.cut(chance.sample(tree.nodes, min(len(tree.nodes), chance.choice([1, 1, 3]))))
            case "cut writing":
                hand.cut([node for node in tree.nodes if node.state == "writing"][:2])
            case "restore":
                given_up = [node for node in tree.nodes if node.pruned]
                hand.restore(chance.choice(given_up or [node]))
            case "change":
                strategy = chance.choice(["beam", "dvts", "best-of-n", "majority", "cot"])
                n, m = chance.choice([(4, 2), (4, 4), (6, 2)])
                hand.change(
                    tree.plan.replace(strategy=strategy, n=n, m=m, variant=chance.choice(["paper", "search-and-learn"]))
                )
            case "vote":
                hand.change(tree.plan.replace(vote=chance.choice(["majority", "prm-max"]), score="min"))
            case _:
                getattr(search, kind.replace(" ", "_"))()

    async def _keep(self):
        heard, turns = 0, 0
        while True:
            await asyncio.sleep(0)
            turns = turns + 1 if heard == len(self.events) else 0
            heard = len(self.events)
            if turns > PATIENCE and self.search.tree.paused:
                self.search.go_on()

    async def close(self):
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)


def picture(tree):
    """Return the complete content of a tree as plain values."""
    names = {name for name in Node.__slots__ if name not in ("parent", "children", "ids")}
    nodes = [
        (node.parent and node.parent.id, node.ids and list(node.ids), *(getattr(node, name) for name in sorted(names)))
        for node in tree.nodes
    ]
    return (
        nodes,
        tree.counts.as_tuple(),
        tree.ahead,
        [node.id for node in tree.solutions],
        [node.id for node in tree.voters()],
        [node.id for node in tree.branches],
        (tree.restored, tree.plan, tree.held, tree.paused, tree.finished, tree.seconds),
    )


def models(seed, words=4):
    return Talkative(random_script(seed, words), piece=3), ScriptedPRM(random_rule(seed, 40))


def plan(strategy="beam", n=4, m=2, **settings):
    return Plan(**{"strategy": strategy, "n": n, "m": m, "max_depth": 5, "vote": "prm-vote", **settings})


async def steered(acts, plan, seed=0, record=None):
    """Return the result, person and policy of a search in which a `Person` performed `acts`."""
    policy, prm = models(seed)
    person = Person(acts)
    try:
        async with Solver(policy, prm) as solver:
            result = await solver.solve("p", plan, record=record, sinks=[person], steer=person.steer)
    finally:
        await person.close()
    return result, person, policy


def spent(tree):
    """Return the total cost of all steps and of unused speculative tokens."""
    return sum((node.usage for node in tree.nodes if node.usage is not None), Usage()) + tree.ahead

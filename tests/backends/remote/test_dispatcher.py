"""Who goes to the server next, how many are there at once, and which prompts are computed once."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backends.openai.test_policy import FakeOpenAI
from tests.fake_sglang import FakeSGLang
from tts_tui import Sampling, StepRequest
from tts_tui.backends.openai.policy import OpenAIPolicy
from tts_tui.backends.remote import dispatcher as dispatching
from tts_tui.backends.remote import prefix_lock as warming
from tts_tui.backends.remote.concurrency import CALM_SECONDS, CUT, PATIENCE, ConcurrencyLimit, SlowdownModel
from tts_tui.backends.remote.dispatcher import Dispatcher
from tts_tui.backends.remote.prefix_lock import PrefixLock
from tts_tui.backends.sglang.policy import SGLangPolicy
from tts_tui.protocols import Claim


async def settle() -> None:
    """Lets everything happen that waits for no time."""
    for _ in range(20):
        await asyncio.sleep(0)


# -- the knee ----------------------------------------------------------------------------------------------------------


class Machine:
    """A server whose tokens a second grow up to a knee, and a client that keeps it as busy as the limit allows."""

    def __init__(self, knee: ConcurrencyLimit, full_at: int, noise: float = 0.0) -> None:
        self.knee, self.full_at, self.noise, self.now = knee, full_at, noise, 0.0
        self.limits: list[int] = []

    def run(self, seconds: int, load: float = 1.0) -> None:
        for _ in range(seconds * 10):
            self.now += 0.1
            running = max(1, int(self.knee.limit * load))
            wobble = 1 + self.noise * (1 if int(self.now * 10) % 20 < 10 else -1)
            self.knee.tokens(round(min(running, self.full_at) * 10 * wobble), running, self.now)
            self.limits.append(self.knee.limit)

    @property
    def settled(self) -> int:
        """The limit of most of the second half."""
        return Counter(self.limits[len(self.limits) // 2 :]).most_common(1)[0][0]


@given(full_at=st.integers(4, 230), noise=st.floats(0, 0.03))
@settings(deadline=None, max_examples=50)
def test_the_knee_is_found_from_below(full_at, noise):
    machine = Machine(ConcurrencyLimit(4), full_at, noise)
    machine.run(200)
    assert full_at / 1.2 <= machine.settled <= 2 * full_at
    assert max(machine.limits) <= 4 * full_at  # one level above is tried, and no more


def test_a_machine_that_is_never_full_gets_the_most():
    machine = Machine(ConcurrencyLimit(8, most=96), 10_000)
    machine.run(60)
    assert machine.limits[-1] == 96


def test_a_higher_level_is_tried_seldom():
    machine = Machine(ConcurrencyLimit(16), 16)
    machine.run(300)
    raised = sum(limit > 16 for limit in machine.limits)
    assert raised < 2 * len(machine.limits) / PATIENCE


def test_a_window_that_was_not_full_says_nothing():
    machine = Machine(ConcurrencyLimit(16), 10_000)
    machine.run(60, load=0.5)
    assert set(machine.limits) == {16}


def test_a_pause_says_nothing_of_the_server():
    knee = ConcurrencyLimit(16)
    machine = Machine(knee, 10_000)
    for _ in range(3):
        machine.run(2)
        machine.now += 1000
        knee.idle()
    assert machine.limits[-1] >= 64  # no rate was taken over the pauses: each step up was seen to pay


def test_an_overload_cuts_once_a_burst_and_keeps_calm():
    machine = Machine(ConcurrencyLimit(100, most=100), 10_000)
    machine.run(2)
    for _ in range(50):
        machine.knee.overloaded(machine.now)
    assert machine.knee.limit == int(100 * CUT)
    began = machine.now
    machine.run(int(CALM_SECONDS) - 1)
    assert machine.knee.limit == int(100 * CUT)
    machine.run(60)
    assert machine.knee.limit == 100 and machine.now > began + CALM_SECONDS
    for _ in range(100):
        machine.now += CALM_SECONDS
        machine.knee.overloaded(machine.now)
    assert machine.knee.limit == machine.knee.least


def test_a_number_that_the_user_gave_stays():
    machine = Machine(ConcurrencyLimit(7, least=7, most=7), 3)
    machine.run(30)
    machine.knee.overloaded(machine.now)
    machine.run(30)
    assert set(machine.limits) == {7}


# -- turns -------------------------------------------------------------------------------------------------------------


class Crowd:
    """Requests that wait for a slot, and hold it until they are told to let go."""

    def __init__(self, dispatch: Dispatcher) -> None:
        self.dispatch = dispatch
        self.order: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.ends: dict[str, asyncio.Event] = {}
        self.claims: dict[str, Claim] = {}

    def come(self, name: str, session: str = "", ahead: bool = False) -> None:
        self.ends[name] = asyncio.Event()
        claim = self.claims[name] = Claim()

        async def hold() -> None:
            async with self.dispatch.slot(session, claim if ahead else None):
                self.order.append(name)
                await self.ends[name].wait()

        self.tasks[name] = asyncio.create_task(hold())

    @property
    def holding(self) -> list[str]:
        return [name for name in self.order if not self.tasks[name].done()]

    async def drain(self) -> None:
        """Lets one after the other go."""
        await settle()
        while self.holding:
            self.ends[self.holding[0]].set()
            await settle()


def fixed(limit: int) -> ConcurrencyLimit:
    return ConcurrencyLimit(limit, least=limit, most=limit)


async def test_a_large_search_does_not_keep_a_small_one_waiting():
    crowd = Crowd(Dispatcher(fixed(1)))
    for number in range(20):
        crowd.come(f"large {number}", "large")
    await settle()
    crowd.come("small 0", "small")
    crowd.come("small 1", "small")
    await crowd.drain()
    assert crowd.order.index("small 0") <= 2 and crowd.order.index("small 1") <= 4
    large = [name for name in crowd.order if name.startswith("large")]
    assert large == [f"large {number}" for number in range(20)]


async def test_what_is_ahead_of_its_time_goes_last_of_all_searches():
    dispatch = Dispatcher(fixed(2))
    crowd = Crowd(dispatch)
    crowd.come("first", "a")
    crowd.come("second", "b")
    await settle()
    crowd.come("ahead", "a", ahead=True)
    crowd.come("third", "b")
    crowd.come("fourth", "b")
    await settle()
    assert dispatch.free == 0
    await crowd.drain()
    assert crowd.order == ["first", "second", "third", "fourth", "ahead"]
    assert dispatch.most_running == 2 and dispatch.free == 2


async def test_what_was_ahead_of_its_time_takes_its_turn_once_somebody_needs_it():
    dispatch = Dispatcher(fixed(1))
    crowd = Crowd(dispatch)
    crowd.come("first", "a")
    await settle()
    for name in ("ahead", "claimed"):
        crowd.come(name, "a", ahead=True)
    crowd.come("needed before", "a")
    await settle()
    crowd.claims["claimed"].make()
    crowd.claims["claimed"].make()
    crowd.come("needed after", "a")
    await crowd.drain()
    assert crowd.order == ["first", "needed before", "claimed", "needed after", "ahead"]


async def test_a_claim_that_is_made_after_the_wait_moves_nothing():
    dispatch = Dispatcher(fixed(1))
    crowd = Crowd(dispatch)
    crowd.come("first", ahead=True)
    crowd.come("cancelled", ahead=True)
    await settle()
    assert dispatch.ahead == 1
    crowd.tasks["cancelled"].cancel()
    await settle()
    for claim in crowd.claims.values():
        claim.make()
    await crowd.drain()
    assert crowd.order == ["first"] and (dispatch.running, dispatch.ahead, dispatch.free) == (0, 0, 1)


async def test_who_has_given_up_waiting_takes_no_room():
    dispatch = Dispatcher(fixed(2))
    crowd = Crowd(dispatch)
    for name in ("held", "held too", "waits"):
        crowd.come(name)
    await settle()
    crowd.tasks["waits"].cancel()
    await settle()
    dispatch.knee.limit = 3
    assert dispatch.free == 1
    await crowd.drain()


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["come", "ahead", "claim", "end", "cancel", "tick", "raise", "lower"]), st.integers(0, 30)
        ),
        max_size=60,
    ),
    rate=st.sampled_from([None, 100_000.0]),
)
@settings(deadline=None, max_examples=100)
def test_no_order_of_cancellations_loses_a_slot(steps, rate):
    async def run() -> None:
        dispatch = Dispatcher(ConcurrencyLimit(3, least=1, most=8), rate=rate)
        crowd = Crowd(dispatch)
        for number, (what, which) in enumerate(steps):
            names = list(crowd.tasks)
            if what in ("come", "ahead"):
                crowd.come(str(number), f"session {which % 3}", what == "ahead")
            elif what == "end" and crowd.holding:
                crowd.ends[crowd.holding[which % len(crowd.holding)]].set()
            elif what == "cancel" and names:
                crowd.tasks[names[which % len(names)]].cancel()
            elif what == "claim" and names:
                crowd.claims[names[which % len(names)]].make()
            elif what == "tick":
                await asyncio.sleep(0)
            elif what in ("raise", "lower"):
                dispatch.knee.limit = 8 if what == "raise" else 1
            assert 0 <= dispatch.running <= 8
        dispatch.knee.limit = 3
        await crowd.drain()
        if rate is not None:
            await asyncio.sleep(0.02)
            await crowd.drain()
        assert all(task.done() for task in crowd.tasks.values())
        assert dispatch.running == dispatch.ahead == 0 and dispatch.free == 3
        async with AsyncExitStack() as stack, asyncio.timeout(5):
            for _ in range(3):
                await stack.enter_async_context(dispatch.slot())
            assert dispatch.running == 3
        await dispatch.close()

    asyncio.run(run())


async def test_one_task_alone_waits_for_the_throttler():
    dispatch = Dispatcher(fixed(100), rate=5)
    crowd = Crowd(dispatch)
    for number in range(40):
        crowd.come(str(number), f"session {number % 3}")
    await settle()
    starters = [task for task in asyncio.all_tasks() if "_start_at_rate" in task.get_coro().__qualname__]
    assert len(starters) == 1
    assert len(crowd.order) == 5 == dispatch.running
    for task in crowd.tasks.values():
        task.cancel()
    await asyncio.gather(*crowd.tasks.values(), return_exceptions=True)
    await dispatch.close()
    assert dispatch.running == 0
    assert not [task for task in asyncio.all_tasks() if "Dispatch" in task.get_coro().__qualname__]


@pytest.mark.parametrize("rate", [0.2, 1, 7.6])
async def test_a_rate_below_one_a_second_is_one_too(rate):
    dispatch = Dispatcher(fixed(100), rate=rate)
    crowd = Crowd(dispatch)
    for number in range(20):
        crowd.come(str(number))
    await settle()
    assert len(crowd.order) == max(1, round(rate))
    for task in crowd.tasks.values():
        task.cancel()
    await asyncio.gather(*crowd.tasks.values(), return_exceptions=True)
    await dispatch.close()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_a_burst_of_overloads_is_one_and_they_double_while_they_last():
    clock = Clock()
    dispatch = Dispatcher(ConcurrencyLimit(100, most=100), clock=clock)
    first = dispatching.FIRST_WAIT
    assert {dispatch.overloaded(None) for _ in range(10)} == {first}
    assert dispatch.free == 0 and dispatch.knee.limit == int(100 * CUT)
    waits = []
    for _ in range(8):
        clock.now += 1000
        waits.append(dispatch.overloaded(None))
    assert waits == [min(dispatching.LONGEST_WAIT, first * 2**power) for power in range(1, 9)]
    clock.now += 1000
    dispatch.on_tokens(1)
    assert dispatch.overloaded(None) == first


async def test_a_server_is_given_the_time_that_it_asks_for_within_reason():
    clock = Clock()
    dispatch = Dispatcher(fixed(4), clock=clock)
    assert dispatch.overloaded(3.0) == 3.0
    crowd = Crowd(dispatch)
    crowd.come("waits")
    await settle()
    assert crowd.order == [] and dispatch.free == 0
    clock.now += 3.0
    dispatch._reopen()
    await crowd.drain()
    assert crowd.order == ["waits"]
    assert dispatch.overloaded(float("inf")) == dispatching.LONGEST_ASKED
    await dispatch.close()


# -- cold prompts ------------------------------------------------------------------------------------------------------


class Prefill:
    """Requests for prompts, and who of them computes."""

    def __init__(self) -> None:
        self.warm = PrefixLock()
        self.computing: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.firsts: dict[str, asyncio.Future[bool]] = {}

    def ask(self, name: str, session: str, ids: tuple[int, ...], claim: Claim | None = None) -> None:
        self.firsts[name] = asyncio.get_running_loop().create_future()

        async def work() -> None:
            async with self.warm.acquire(session, ids, claim) as began:
                self.computing.append(name)
                if await self.firsts[name]:
                    began()
                    began()

        self.tasks[name] = asyncio.create_task(work())

    async def first_token(self, name: str, fine: bool = True) -> None:
        self.firsts[name].set_result(fine)
        await settle()

    async def close(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        assert not self.warm._leaders


async def test_a_cold_prompt_is_computed_by_one_and_the_others_follow():
    prefill = Prefill()
    for number in range(5):
        prefill.ask(str(number), "run", (1, 2, 3))
    await settle()
    assert prefill.computing == ["0"]
    await prefill.first_token("0")
    assert sorted(prefill.computing) == list("01234")
    await prefill.close()


async def test_the_first_request_of_a_search_goes_alone_and_later_prompts_side_by_side():
    prefill = Prefill()
    prefill.ask("a", "run", (1, 2))
    prefill.ask("b", "run", (1, 3))
    prefill.ask("other", "another run", (1, 2))
    await settle()
    assert prefill.computing == ["a", "other"]
    await prefill.first_token("a")
    for name, ids in (("b again", (1, 3)), ("c", (1, 4)), ("a again", (1, 2))):
        prefill.ask(name, "run", ids)
    await settle()
    assert prefill.computing == ["a", "other", "b", "c", "a again"]
    await prefill.first_token("b")
    assert prefill.computing[-1] == "b again"
    await prefill.close()


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
async def test_when_the_one_that_computes_is_gone_the_next_one_does_it_alone(how):
    prefill = Prefill()
    for number in range(4):
        prefill.ask(str(number), "run", (1, 2, 3))
    await settle()
    for expected in ("0", "1"):
        assert prefill.computing[-1] == expected
        if how == "fails":
            await prefill.first_token(expected, fine=False)
        else:
            prefill.tasks[expected].cancel()
            await settle()
    assert prefill.computing == ["0", "1", "2"]
    prefill.tasks["3"].cancel()  # who only waits disturbs nobody
    await settle()
    await prefill.first_token("2")
    prefill.ask("late", "run", (1, 2, 3))
    await settle()
    assert prefill.computing == ["0", "1", "2", "late"]
    await prefill.close()


@pytest.mark.parametrize("session", ["known", "new"])
async def test_nobody_waits_for_a_speculative_request_that_has_not_started(session):
    prefill = Prefill()
    prefill.warm.add("known", (0,))
    prefill.ask("speculative", session, (1, 2), Claim())
    await settle()
    prefill.ask("another", session, (1, 2), Claim())
    for number in range(3):
        prefill.ask(f"needed {number}", session, (1, 2))
    await settle()
    assert prefill.computing == ["speculative", "needed 0"]  # one of them, and not all
    await prefill.first_token("needed 0")
    assert sorted(prefill.computing[2:]) == ["another", "needed 1", "needed 2"]
    await prefill.close()


@pytest.mark.parametrize("first", ["speculative", "needed"])
async def test_one_that_was_overtaken_and_is_sent_all_the_same_disturbs_nobody(first):
    prefill = Prefill()
    prefill.ask("speculative", "run", (1, 2), Claim())
    await settle()
    prefill.ask("needed", "run", (1, 2))
    prefill.ask("follower", "run", (1, 2))
    await settle()
    assert prefill.computing == ["speculative", "needed"]
    await prefill.first_token(first)
    assert prefill.computing[2:] == ["follower"]
    await prefill.close()


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
async def test_one_that_was_overtaken_and_ends_leaves_the_lead_where_it_is(how):
    prefill = Prefill()
    prefill.ask("speculative", "run", (1, 2), Claim())
    await settle()
    prefill.ask("needed", "run", (1, 2))
    await settle()
    if how == "fails":
        await prefill.first_token("speculative", fine=False)
    else:
        prefill.tasks["speculative"].cancel()
    prefill.ask("follower", "run", (1, 2))
    await settle()
    assert prefill.computing == ["speculative", "needed"]
    await prefill.close()


@pytest.mark.parametrize("state", ["started", "made"])
async def test_a_speculative_request_that_is_under_way_is_waited_for(state):
    prefill, claim = Prefill(), Claim()
    prefill.ask("speculative", "run", (1, 2), claim)
    await settle()
    setattr(claim, state, True)
    prefill.ask("needed", "run", (1, 2))
    await settle()
    assert prefill.computing == ["speculative"]
    await prefill.first_token("speculative")
    assert prefill.computing == ["speculative", "needed"]
    await prefill.close()


async def test_one_that_is_claimed_while_it_waits_for_another_goes_ahead_of_it():
    prefill, claims = Prefill(), [Claim() for _ in range(3)]
    for number, claim in enumerate(claims):
        prefill.ask(str(number), "run", (1, 2), claim)
    await settle()
    assert prefill.computing == ["0"]
    claims[2].make()
    await settle()
    assert prefill.computing == ["0", "2"]
    claims[1].make()  # follows the one that is needed
    await settle()
    assert prefill.computing == ["0", "2"]
    await prefill.close()


async def test_a_needed_step_passes_its_speculative_sibling_on_a_full_server():
    """Both classes together, as a policy uses them: the sibling holds the lead, and waits behind others for a slot."""
    dispatch, warm, claim, sent = Dispatcher(fixed(1)), PrefixLock(), Claim(), []
    warm.add("run", (0,))

    async def request(name: str, ids: tuple[int, ...], claim: Claim | None = None) -> None:
        async with warm.acquire("run", ids, claim) as began, dispatch.slot("run", claim):
            sent.append(name)
            await settle()
            began()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(request("running", (1,)))
        await asyncio.sleep(0)
        group.create_task(request("speculative", (1, 2), claim))
        await asyncio.sleep(0)
        for number in range(5):
            group.create_task(request(f"other {number}", (2, number)))
        await asyncio.sleep(0)
        group.create_task(request("needed", (1, 2)))
    assert sent == ["running", *(f"other {number}" for number in range(5)), "needed", "speculative"]


@pytest.mark.parametrize("kind", ["openai", "sglang"])
@pytest.mark.parametrize("claimed", [False, True])
async def test_policies_send_what_is_needed_before_what_nobody_needs(kind, claimed):
    server = FakeOpenAI("sglang") if kind == "openai" else FakeSGLang()
    async with server, AsyncExitStack() as stack:
        policy = (OpenAIPolicy if kind == "openai" else SGLangPolicy)(server.url, concurrency=1)
        stack.push_async_callback(policy.close)
        await policy.start()
        one, other = [(await policy.prompt(problem)).ids for problem in ("1 + 1?", "2 + 2?")]

        async def ask(ids: tuple[int, ...], tokens: int, claim: Claim | None = None) -> None:
            request = StepRequest(ids, Sampling(), tokens, session="s", claim=claim)
            async with aclosing(policy.stream(request)) as chunks:
                async for _ in chunks:
                    pass

        await ask((*other, *other), 1)  # so that the session is known
        begun = len(server.asked)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group, policy.dispatch.slot():
            claim = Claim()
            group.create_task(ask(one, 2, claim))
            await settle()
            if claimed:
                claim.make()
            for tokens, ids in ((3, other), (4, one)):
                group.create_task(ask(ids, tokens))
                await settle()
        bodies = server.asked[begun:] if kind == "openai" else [body for _, body in server.asked[begun:]]
        sent = [body.get("max_tokens") or body["sampling_params"]["max_new_tokens"] for body in bodies]
        assert sent == ([2, 3, 4] if claimed else [3, 4, 2])


async def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(warming, "MOST", 10)
    warm = PrefixLock()
    for number in range(100):
        warm.add("run", (number,))
    assert len(warm._known) == 10
    async with asyncio.timeout(1), warm.acquire("run", (99,)) as began:
        began()


@pytest.mark.parametrize(
    ("base", "slope", "needed", "slack"), [(0.1, 0.01, 10, 3), (0.01, 0.0001, 16, 17), (1.0, 0.0, 8, 1e9)]
)
def test_how_many_more_streams_slow_the_others_by_a_share_is_found(base, slope, needed, slack):
    pace, now = SlowdownModel(), 0.0
    for running in [16, 12, 8, 4, 2, 1] * 3:
        for _ in range(10):
            now += base + slope * running
            for _ in range(running):
                pace.tokens(1, running, now)
    assert (
        pace.slack(needed, 0.15) >= slack * 0.8
        if slack > 100
        else pace.slack(needed, 0.15) == pytest.approx(slack, rel=0.25)
    )


def test_of_an_unknown_server_nothing_is_promised():
    pace, now = SlowdownModel(), 0.0
    assert pace.slack(8, 0.15) == 0
    for _ in range(100):  # always as many: what one more would cost is not seen
        now += 0.1
        for _ in range(8):
            pace.tokens(1, 8, now)
    assert pace.slack(8, 0.15) == 0


async def test_room_to_write_ahead_is_what_slows_the_others_little():
    now = [0.0]
    dispatch = Dispatcher(ConcurrencyLimit(32), clock=lambda: now[0])
    assert (dispatch.free, dispatch.spare) == (32, 0)
    async with AsyncExitStack() as stack:
        for running in (8, 16):
            while dispatch.running < running:
                await stack.enter_async_context(dispatch.slot("a"))
            for _ in range(100):
                now[0] += 0.1 + 0.01 * running
                for _ in range(running):
                    dispatch.on_tokens(1)
        assert dispatch.free > dispatch.spare == 3
        await stack.enter_async_context(dispatch.slot("a", claim := Claim()))
        assert (dispatch.ahead, dispatch.spare) == (1, 2)
        claim.make()  # it slows the others as all that are needed do
        assert dispatch.ahead == 0

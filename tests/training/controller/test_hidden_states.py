"""What a policy makes of prompts is read once and kept."""

from __future__ import annotations

import pytest

from tests.scripted import ScriptedPolicy
from tts_tui.errors import ContextExceeded, RecordCorrupt, UsageError
from tts_tui.evaluation.datasets.loading import Item
from tts_tui.protocols import ModelInfo, PromptEncoding
from tts_tui.training.controller.hidden_states import kept, read

ITEMS = [Item(str(number), f"problem {number}", "1") for number in range(20)]


class Shows(ScriptedPolicy):
    """Has a state for every problem but those it is told to fail on."""

    def __init__(self, state=(0.6, 0.8)):
        super().__init__(lambda path, draw: "")
        self.asked, self.state, self.fails, self.error = [], state, "", UsageError("it failed")

    async def encode_prompt(self, prompt, late=None):
        if prompt.problem == self.fails:
            raise self.error
        self.asked.append(prompt.problem)
        return PromptEncoding(self.state)


async def test_all_prompts_are_read_and_kept(tmp_path):
    told = []
    found = await read(Shows(), ITEMS, tmp_path / "states.jsonl", lambda done, total: told.append((done, total)))
    assert list(found) == [item.id for item in ITEMS] and found["3"] == (0.6, 0.8)
    assert kept(tmp_path / "states.jsonl", "scripted") == found
    assert told[-1] == (20, 20)


async def test_after_an_interruption_only_the_others_are_read(tmp_path):
    path, policy = tmp_path / "states.jsonl", Shows()
    policy.fails = "problem 12"
    with pytest.raises(UsageError, match="it failed"):
        await read(policy, ITEMS, path)
    had = kept(path, "scripted")
    assert 0 < len(had) < 20
    path.write_bytes(path.read_bytes() + b'{"problem":"9')  # a kill in the middle of a line
    again = Shows()
    found = await read(again, ITEMS, path)
    assert len(found) == 20 and len(again.asked) == 20 - len(had)
    assert kept(path, "scripted") == found


async def test_a_prompt_that_is_too_long_has_no_state_and_stops_nobody(tmp_path):
    policy = Shows()
    policy.fails, policy.error = "problem 3", ContextExceeded("too long")
    found = await read(policy, ITEMS, tmp_path / "states.jsonl")
    assert len(found) == 19 and "3" not in found


async def test_another_policy_s_states_are_passed_over(tmp_path):
    path, other = tmp_path / "states.jsonl", Shows((0.0, 1.0))
    await read(Shows(), ITEMS, path)
    other.info = ModelInfo("another", 10, 100)
    found = await read(other, ITEMS, path)
    assert len(other.asked) == 20 and set(found.values()) == {(0.0, 1.0)}
    assert set(kept(path, "scripted").values()) == {(0.6, 0.8)}


async def test_a_policy_without_states_has_none(tmp_path):
    path = tmp_path / "states.jsonl"
    assert await read(ScriptedPolicy(lambda path, draw: ""), ITEMS, path) == {}
    assert await read(Shows(state=()), ITEMS, path) == {}
    assert kept(path, "scripted") == {}


async def test_another_file_is_refused(tmp_path):
    path = tmp_path / "states.jsonl"
    path.write_text("hello\n")
    with pytest.raises(RecordCorrupt, match="remove it, and the prompts are read again"):
        await read(Shows(), ITEMS, path)
    with pytest.raises(UsageError, match="cannot write"):
        await read(Shows(), ITEMS, tmp_path / "no" / "states.jsonl")

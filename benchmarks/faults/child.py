"""The command line with brief waits, in a separate process: `python -m benchmarks.faults.child ARGUMENTS`."""

from __future__ import annotations

from typing import Any
from unittest import mock

from benchmarks.faults.watching import brief_waits
from tts_tui import registry
from tts_tui.cli import main as cli
from tts_tui.protocols import Policy, RewardModel

BRIEF: dict[str, Any] = {"stall": 1.0, "patience": 1.0}
"""Client settings that have no option on the command line."""
_policy, _reward_model = registry.policy, registry.reward_model


def policy(spec: str, **options: Any) -> Policy:
    """Create a policy as `registry.policy` does, with brief waits."""
    return _policy(spec, **BRIEF, **options)


def reward_model(spec: str, policy: Policy | None = None, **options: Any) -> RewardModel | None:
    """Create a reward model as `registry.reward_model` does, with brief waits."""
    return _reward_model(spec, policy, **options, **(BRIEF if spec.startswith("sglang:") else {}))


def main() -> None:
    """Run the command line."""
    with (
        brief_waits(),
        mock.patch.object(registry, "policy", policy),
        mock.patch.object(registry, "reward_model", reward_model),
    ):
        cli.main()


if __name__ == "__main__":
    main()

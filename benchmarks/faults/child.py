"""The command line with brief waits, in a process of its own: `python -m benchmarks.faults.child ARGUMENTS`."""

from __future__ import annotations

from functools import partial

from benchmarks.faults.watching import brief_waits
from tts_tui import cli, registry

STALL, PATIENCE = 1.0, 1.0


def main() -> None:
    """Runs the command line."""
    brief = {"stall": STALL, "patience": PATIENCE}
    registry.policy = partial(registry.policy, **brief)
    reward_model = registry.reward_model
    registry.reward_model = lambda spec, *policy, **options: reward_model(
        spec, *policy, **options, **(brief if spec.startswith("sglang:") else {})
    )
    with brief_waits():
        cli.main()


if __name__ == "__main__":
    main()

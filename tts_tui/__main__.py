"""The entry point of `tts-tui` and of `python -m tts_tui`.

It imports almost nothing before Ctrl-C is handled, because the command line takes a quarter of a second to load.
"""

from tts_tui.displays import signals


def main() -> None:
    """Load the command line and run it until the process exits."""
    signals.leave_quietly_on_interrupt()
    from tts_tui.cli.main import main as run

    run()


if __name__ == "__main__":
    main()

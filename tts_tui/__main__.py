"""The entry point of `tts-tui` and of `python -m tts_tui`.

It imports next to nothing before Ctrl-C is handled: the command line takes a quarter of a second to load.
"""

from tts_tui.displays import signals


def main() -> None:
    """Loads the command line and runs it to the end of the process."""
    signals.leave_quietly_on_interrupt()
    from tts_tui.cli.main import main as run

    run()


if __name__ == "__main__":
    main()

"""`python -m tts_tui` is `tts-tui`."""

from tts_tui.cli import main

if __name__ == "__main__":
    main()

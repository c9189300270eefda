"""The command line: one file a group of commands, joined in `app`.

What takes long to import (numpy, Arrow, torch) is imported inside the command that needs it.
"""

from forecasting.cli.app import main

__all__ = ["main"]

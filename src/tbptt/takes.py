"""Where files of your own that are older than ``tbptt.extend`` import from."""

from tbptt.options.takes import *  # noqa: F403

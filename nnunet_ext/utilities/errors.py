"""The one exception a user is meant to read."""

from __future__ import annotations


class UsageError(ValueError):
    """Input that cannot be used: the message names the thing, the value got and the fix.

    Command line tools print the message alone (no traceback) and exit with code 1.
    """

"""`AudiovqError`: an error that the user can fix, in one line."""

from __future__ import annotations


class AudiovqError(Exception):
    """Error that the user can fix; its text is one line that names the thing and says what to do."""

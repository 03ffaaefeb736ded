"""`AudiovqError`: an error that the user can fix, described in one line."""

from __future__ import annotations


class AudiovqError(Exception):
    """Something the user can mend: its text is one line that names the thing and says what to do."""

"""A folder of recordings before training: contents, unusable files, suitable settings.

May import `evaluation`, `preprocessing` and below. Start with `inspect.inspect`. `measure` computes statistics
of each recording, `describe` pitch, tempo, timbre and loudness of a few; `table` is the report as text. `enough` says what
to expect of a number of clips. `hearing` makes labels of what `describe` measures.
"""

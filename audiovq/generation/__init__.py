"""New sounds from a prior: generate, vary, continue, repaint, morph, loop.

May import `codec`, `models` and below. Start with `generate.generate`; `edit` changes a recording, `inpaint` fills holes
in a grid of codes for both, `long` makes sounds of any length, `files` writes them.
"""

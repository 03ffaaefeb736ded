"""New sounds from a prior: generate, vary, continue, repaint, morph, loop.

May import `codec`, `models` and below. Start with `generate.generate`; `edit` changes a recording, `morph` interpolates
between two, `inpaint` fills masked codes for both, `long` makes sounds of any length, `copies` compares new sounds with
training clips, `files` writes WAVs and their manifest.
"""

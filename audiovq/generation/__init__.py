"""New sounds from a prior: generate, vary, continue, repaint, morph, loop.

May import `codec`, `models` and below. Start with `generate.generate`; `codes` samples codes from a prior, `labels`
those labels that are not given, `long` makes sounds of any length and loops. `edit` changes a recording and keeps its
samples elsewhere, `inpaint` fills masked codes, `morph` interpolates between two. `copies` finds near
copies of training clips; `known` stores the clips' codes and chooses the threshold (`learn_clips`, called in
training). `sound` is the result, `files` has the verbs that write sounds into a folder, by
`output`.
"""

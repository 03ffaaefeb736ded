"""Waveforms ↔ codes ↔ archive files, with a trained model.

May import `models` and below. Start with `codec.encode` and `codec.decode`; `windows` does the same for long
recordings. `archive` is the file format (`pack` writes, `unpack` checks and reads), `probabilities` has its entropy
models, `side_info` its names, levels and lengths. `files` encodes and decodes whole folders, `recordings` reads and
encodes their recordings, `names` gives each sound a file name. `single` makes the sound
of one code. `tokenize` encodes a dataset's split to the tokens
that priors are trained on.
"""

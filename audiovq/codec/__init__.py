"""Waveforms ↔ codes ↔ archive files, with a trained model.

May import `models` and below. Start with `codec.encode` and `codec.decode`; `windows` does the same for long recordings,
`archive` is the file format, `probabilities` its entropy models, `recordings` and `files` work on whole folders.
"""

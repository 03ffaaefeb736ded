"""Waveforms ↔ codes ↔ archive files, with a trained model.

May import `models` and below. Start with `codec.encode` and `codec.decode`; `windows` does the same for long recordings,
`archive` writes codes to the byte, `probabilities` supplies its entropy models, `files` works on whole folders.
"""

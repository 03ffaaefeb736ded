"""What a model is worth: fidelity of reconstructions, and of new sounds against real ones.

May import `training` and below. Start with `evaluate.evaluate`; `fidelity` compares a waveform with its original,
`classifier` is the judge of labels, `distances` compare sets, `wording` puts figures into sentences.
"""

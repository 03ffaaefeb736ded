"""Quality of a model: fidelity of reconstructions, and generated sounds against real ones.

May import `training` and below. Start with `evaluate.evaluate`. `fidelity` compares waveforms with their
originals, `reconstruction` applies it to a model; `judges` trains two classifiers and compares generated sounds
with real ones by the `distances` of their features; `wording` describes all figures in words.
"""

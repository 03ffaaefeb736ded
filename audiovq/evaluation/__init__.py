"""Quality of a model: fidelity of reconstructions, and generated sounds against real ones.

May import `training` and below. Start with `evaluate.evaluate`. `fidelity` compares waveforms with their originals,
`envelopes` measures attacks, pre-echoes and clicks of single waveforms. `reconstruction` applies `fidelity` to a
model, `originals` reads the original recordings. `judges` trains two judges of labels, `classifier` (which tells
whether a generated sound is recognised) and `listener` (with unlike features), and compares generated sounds with
real ones by the `distances` of their features. `wording` has the name, unit and explanation of each figure (a number
that is measured): add a figure in `evaluate` and a row in `wording`, and table and page show it.
`verdict` says in one sentence how good a model is and what would help.
"""

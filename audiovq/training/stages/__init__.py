"""The stages of training: autoencoder, vivid decoder, context tables, prior, masked prior.

Start with `autoencoder.AutoencoderStage`; `vivid`, `prior` and `masked_prior` subclass `training.stage.Stage`, too.
`context` fits tables by a short loop that is not resumed. `training.run` trains the stages one after the other.
`contrast` is fitted after a decoder is trained, `sweeps` after the masked prior. `plain` is what they print for beginners.
"""

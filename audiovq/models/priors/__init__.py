"""Priors over codes: transformer, PixelCNN, masked transformer, and sampling from them.

Start with `tokens.Vocabulary` (codes ↔ tokens) and `base.Prior` (the interface), then `transformer`. A third kind of
prior subclasses `Prior` and is named in `models.model.Model.new_prior`. Knows nothing of `models.autoencoder`.
"""

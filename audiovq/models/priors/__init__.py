"""Priors over codes: transformer, PixelCNN, masked transformer, and sampling from them.

Start with `tokens.Vocabulary` (codes ↔ tokens) and `base.Prior` (the interface of autoregressive priors), then
`transformer`, whose layers are in `attention` and whose codes within a column come from `column_decoder`; `pixelcnn` is
the other one. Another autoregressive prior subclasses `Prior`, is named in `config.settings.PriorConfig.kind` and built
in `models.model.Model.new_prior`. `sampling` samples from both, with guidance in `apply_guidance`. `labels` embeds
labels, words and numbers, for all of them. `masked` is the masked prior, apart from these; `masking` has its masks, `masked_sampling` its sampler, guidance included.
Knows nothing of `models.autoencoder`.
"""

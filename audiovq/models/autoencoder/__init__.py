"""The VQ-VAE and its relatives: encoder, bottleneck, decoder.

Start with `autoencoder.Autoencoder`; `networks` holds encoder and decoder, `lesson_networks` those of the tutorials,
`quantizers` the codebooks (a dead code is restarted in `Codebook`), `gaussian` the bottlenecks without codes, `masks`
the valid columns of each clip; `vivid` is the decoder of new sounds, `discriminator` what it is trained against.
Knows nothing of `models.priors`.
"""

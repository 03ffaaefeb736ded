"""A folder of recordings → a dataset. Imports no torch, which takes longer to load than the work.

May import `dataset.manifest`, `spectral.numpy_spectrogram`, `audio`, `runtime` and `config`. Start with
`preprocess.preprocess`: `catalog` lists the files, `labels` reads labels and splits from names, `settings` chooses
the spectrogram, `shard` makes one array of clips. `images` does the same for pictures.
"""

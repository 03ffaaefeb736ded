"""A folder of recordings → a dataset. Imports no torch, as loading it takes longer than preprocessing.

May import `dataset.manifest`, `spectral.numpy_spectrogram`, `audio`, `runtime` and `config`. Start with
`preprocess.preprocess`: `catalog` lists the files, `labels` reads labels from their names, `splits` assigns them to
training, validation and test, `settings` chooses the spectrogram, `slicing` cuts a recording into clips, `shard`
makes one array of clips. `images` does the same for pictures.
"""

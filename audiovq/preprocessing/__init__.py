"""A folder of recordings → a dataset. Imports no torch, as loading it takes longer than preprocessing.

May import `dataset.manifest`, `spectral.numpy_spectrogram`, `audio`, `runtime` and `config`. Start with
`preprocess.preprocess`: `catalog` lists the files, `labels` reads labels from their names, some of them numbers, `splits` assigns them to
training, validation and test, `settings` chooses the spectrogram, by the `character` of a few recordings. `similar`
finds near copies. `slicing` decides whether a recording is silent, trims its ends (by the measurements of
`audio.silence`) and cuts it into clips; `shard` makes one array of clips, and records which ends of a clip are real.
`folder` guards the dataset's folder between runs. `images` does the same for pictures.
"""

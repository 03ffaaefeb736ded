"""A dataset on disk: its manifest, its clips, and batches of them.

May import `spectral`, `runtime` and `config`. Start with `dataset.Dataset`. `manifest` is the file format and
needs no torch; making a dataset is `preprocessing`.
"""

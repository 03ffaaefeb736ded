"""A dataset on disk: its manifests, its clips, and batches of clips.

May import `spectral`, `runtime` and `config`. Start with `dataset.Dataset`. `manifest` is the file format and
imports no torch. Datasets are made by `preprocessing`.
"""

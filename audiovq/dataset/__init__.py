"""A dataset on disk: its manifests, its clips, and batches of clips.

May import `spectral`, `runtime` and `config`. Start with `dataset.Dataset`. `manifest` is the file format and
imports no torch, as does `numbers`, labels that are numbers; `batches` groups clips of similar length and augments them; `measured` chooses the split that
figures are measured on, and names it; `source` finds the recordings again. Datasets are made by `preprocessing`.
"""

"""The networks and the model folder: autoencoder, entropy model, priors.

May import `dataset`, `spectral`, `runtime` and `config`. Start with `model.Model`, which holds all parts, then
`checkpoint`, which reads and writes the folder. `autoencoder`, `priors` and `entropy` are separate packages.
`known` holds the codes of the training clips, `summary` describes a model, `export` writes its networks as ONNX or .pt2.
"""

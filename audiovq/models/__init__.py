"""The networks and the model folder: autoencoder, entropy model, priors.

May import `dataset`, `spectral`, `runtime` and `config`. Start with `model.Model`, which holds all parts, then
`checkpoint`, which reads and writes the folder; `folder` knows where it is. `autoencoder`, `priors` and `entropy` are
separate packages. `carry` starts a model from the weights of another, `known` holds the codes of the training clips,
`summary` describes a model, `export` writes its networks as ONNX or .pt2.
"""

"""Settings and errors. Every setting of preprocessing, training and sampling is a field of a frozen dataclass here.

Imports nothing of audiovq. Settings check themselves when made, by `checks`. Start with `settings`, those of
training; those of the autoencoder are in `autoencoder`, of preprocessing in `spectrogram`, of sampling and inversion
in `sampling`, of the files of new sounds in `output`. `presets` holds settings of training by name; `serialize`
writes settings as JSON, `flags` as flags of the command line; `errors` has `AudiovqError`, which users see as one
line.
"""

"""Settings and errors. Everything that a user can set is a frozen dataclass here.

Imports nothing of audiovq. Settings check themselves when made. Start with `settings`, those of training; those of
the autoencoder are in `autoencoder`, of preprocessing in `spectrogram`, of sampling in `sampling`. `presets` holds
settings of training by name; `serialize` writes settings as JSON, `flags` as flags of the command line.
"""

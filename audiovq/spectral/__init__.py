"""Waveform ↔ normalized log-spectrogram: STFT, mel bands, decibels, phase, Griffin-Lim.

May import `audio`, `runtime` and `config`. Start with `spectrogram.Spectrogram` (`forward` and `inverse`);
`numpy_spectrogram` is its forward half without torch, for preprocessing; both share `scale`. In `inverse`, `pghi`
makes the initial phase (or `griffin_lim.random_phase`), and `griffin_lim` refines it, with `bands` where the
spectrogram is of mel bands; `bands` also makes two channels of the waveform. All use `stft`. `inversion` inverts true
spectrograms in batches, `picture` writes spectrograms as PNGs, `loudness` measures loudness; `onsets` sharpens onsets
after inversion.
"""

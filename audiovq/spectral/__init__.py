"""Waveform ↔ normalized log-spectrogram: STFT, mel bands, decibels, phase, Griffin-Lim.

May import `audio`, `runtime` and `config`. Start with `spectrogram.Spectrogram` (`forward` and `inverse`);
`numpy_spectrogram` is its forward half without torch, for preprocessing; both share `scale`. `pghi` and
`griffin_lim` reconstruct the phase.
"""

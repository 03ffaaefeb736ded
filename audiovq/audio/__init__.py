"""Recordings: find, read, resample, write. Waveforms are mono float32 NumPy arrays in [-1, 1].

May import `runtime` and `config`; no torch. Start with `reading.blocks`, through which all commands read audio.
"""

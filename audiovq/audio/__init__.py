"""Recordings: find, read, resample, write. Waveforms are float32 NumPy arrays in [-1, 1], mono or stereo.

May import `runtime` and `config`; no torch. Start with `reading.blocks`, through which all commands read audio.
`finding` lists the recordings of a folder and says why other files are none; `headers` corrects lengths that a header
misstates; `channels` mixes channels; `resampling` changes the rate; `silence` measures peak, offset and the audible
part; `ends` fades the ends of decoded sounds and joins new parts to a recording; `writing` writes WAVs and FLACs,
with `chunks` that state loop, tempo and root note; `notes` parses names of notes and tempos; `waveform` is the array
type.
"""

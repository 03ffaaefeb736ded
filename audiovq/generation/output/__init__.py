"""New sounds in a folder: their files, and the manifest that says how they were made.

Imports of `generation` only `edit`, `generate` and `sound`. Start with `run.Run`, which writes sounds batch by batch;
`manifest` makes the contents of manifest.json. The functions that make the sounds are in `generation.files`.
"""

"""Libraries of sounds: packs that samplers load, and folders searched by how their sounds sound.

May import `report` and below. Start with `pack.write_pack`, which chooses new sounds and writes them with
`instruments` (SFZ, Hydrogen) and a page; and with `index.open_index`, which measures the `features` of a folder's
recordings, so that `find` can compare them. `synthesis` makes sounds by formula, to learn from.
"""

"""The HTML page about a model, and plots.

May import `evaluation` and below. Start with `collect.write_report`, which gathers; `sections` and `charts` make HTML of plain data
and know no model; `page` is the frame, `embed` sounds and pictures as data URIs, `plots` the PNGs of `plot`.
"""

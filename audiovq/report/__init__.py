"""The HTML page about a model, and plots.

May import `evaluation` and below. Start with `collect.write_report`, which gathers plain data; `sections` turns it
into the page by the HTML in `templates`, with the charts of `charts` and the CSS and JavaScript in `assets`. `embed`
makes data URIs of sounds, `axes` the ticks of seconds and Hz, `commands` what to type next, `plots` the PNGs of `plot`, `sheet` a page of sound files,
`map` a map of them. Figures are worded in `evaluation.wording`; a new chart takes data in `collect`, coordinates in `charts` and a place in
`sections`.
"""

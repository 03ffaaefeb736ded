"""The frame of an HTML page that stands alone: its head, style and script, and plain tables.

It loads nothing, and its content policy lets nothing else load or run. Strings are escaped where they
enter the HTML, here and in `report`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from html import escape
from string import Template
from typing import Any


def page(title: str, summary: str, parts: dict[str, str]) -> str:
    """A whole page: `parts` are sections of HTML by their headings; title and summary are plain."""
    names = {heading: heading.split()[0].lower() for heading in parts}
    return PAGE.substitute(
        title=escape(title),
        summary=escape(summary),
        links=" ".join(f'<a href="#{name}">{heading}</a>' for heading, name in names.items()),
        sections="\n".join(
            f'<section aria-labelledby="{names[heading]}">\n<h2 id="{names[heading]}">{heading}</h2>'
            f"\n{part}\n</section>"
            for heading, part in parts.items()
        ),
        style=STYLE,
        script=SCRIPT,
        script_hash=base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode(),
    )


def table(rows: Iterable[tuple[str, ...]], head: tuple[str, ...] = ()) -> str:
    """A table of plain strings, the first of each row its heading; empty without rows."""
    body = ""
    for name, *cells in rows:
        body += f'<tr><th scope="row">{escape(name)}</th>'
        body += "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>\n"
    top = "".join(f'<th scope="col">{name}</th>' for name in head)
    top = top and f"<thead><tr>{top}</tr></thead>"
    return body and f"<table>{top}<tbody>\n{body}</tbody></table>"


def flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as (path of names, value)."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name} · ")
        else:
            yield f"{prefix}{name}", str(value)


PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:;
 media-src data:; style-src 'unsafe-inline'; script-src 'sha256-$script_hash'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><title>$title</title>
<style>$style</style></head><body>
<header><h1>$title</h1><p>$summary</p><nav aria-label="Parts of this page">$links</nav></header>
<main>$sections</main>
<script>$script</script></body></html>
""")
STYLE = """
:root { color-scheme: light dark; --page: #faf9f7; --card: #fff; --text: #211d26; --soft: #655f6d;
  --edge: #e3dfe6; --first: #7b2382; --second: #d9582b; --third: #16808f; }
@media (prefers-color-scheme: dark) { :root { --page: #141218; --card: #1e1b24; --text: #ece8f0;
  --soft: #a49dae; --edge: #36313f; --first: #cf86dc; --second: #f79862; --third: #50bccb; } }
* { box-sizing: border-box; } :focus-visible { outline: 2px solid var(--first); outline-offset: 2px; }
body { max-width: 1240px; margin: 0 auto; padding: 2rem clamp(1rem, 4vw, 2.5rem) 4rem;
  background: var(--page); color: var(--text); font: 16px/1.5 system-ui, sans-serif;
  overflow-wrap: anywhere; }
h1 { margin: 0; font-size: clamp(1.6rem, 5vw, 2.3rem); line-height: 1.2; letter-spacing: -.02em; }
h2 { margin: 3.2rem 0 .5rem; font-size: 1.35rem; } h3 { margin: 0 0 .8rem; font-size: 1rem; }
p, figcaption, thead th, details th { color: var(--soft); font-weight: 400; }
p { margin: .4rem 0 1.1rem; max-width: 46rem; } .wide + h3 { margin: 2rem 0 0; }
a, summary { margin-right: 1.2rem; color: var(--first); text-underline-offset: .2em; }
.grid { display: grid; gap: 1rem; }
.cards { grid-template-columns: repeat(auto-fill, minmax(min(100%, 9rem), 1fr)); }
.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); }
.group { min-width: 0; padding-top: .4rem; } .group h3 { margin: 0 0 .4rem; font-size: .95rem; }
.row { display: grid; grid-template-columns: repeat(var(--n), 1fr); gap: .4rem; }
.card, pre { margin: 0; min-width: 0; overflow: hidden; background: var(--card);
  border: 1px solid var(--edge); border-radius: 10px; }
.card:has(:focus-visible) { outline: 2px solid var(--first); outline-offset: 2px; }
.screen { position: relative; display: block; width: 100%; height: 7rem; padding: 0; border: 0;
  outline: 0; background: #000004; color: #fff; cursor: pointer; text-align: left; }
.sound { position: relative; display: block; height: 100%; }
.sound img { display: block; width: 100%; height: 100%; }
.screen::after { content: ""; position: absolute; right: .5rem; bottom: .5rem; width: .7rem;
  height: .8rem; background: #fff; opacity: .55; clip-path: polygon(0 0, 100% 50%, 0 100%); }
.screen:is(:hover, :focus-visible, .playing)::after { opacity: 1; }
.screen.playing::after { clip-path: polygon(0 0, 35% 0, 35% 100%, 65% 100%, 65% 0, 100% 0, 100% 100%,
  35% 100%, 0 100%); }
.playing .sound::after { content: ""; position: absolute; inset: 0 auto 0 var(--at, 0);
  border-left: 2px solid; }
figcaption { padding: .4rem .6rem .45rem; font-size: .88rem; line-height: 1.4; }
figcaption b { color: var(--text); font-weight: 600; } small { white-space: nowrap; }
audio { display: block; width: 100%; height: 36px; } audio:not([controls]) { display: none; }
.chart { padding: 1rem; } .chart figcaption { padding: .6rem 0 0; }
text { font-size: 12px; fill: var(--soft); font-variant-numeric: tabular-nums; }
.end { text-anchor: end; } .mid { text-anchor: middle; } path { stroke: var(--edge); }
.area, .line { --color: var(--first); fill: var(--color); }
.line1 { --color: var(--second); } .line2 { --color: var(--third); } .line3 { --color: var(--soft); }
.code { fill: var(--first); fill-opacity: .45; }
polyline.line { fill: none; stroke: var(--color); stroke-width: 2; }
ul { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: 0; padding: 0; list-style: none; }
i { display: inline-block; width: 1.4em; margin: 0 .4em .25em 0; border-top: 3px solid var(--color); }
table { border-collapse: collapse; font-size: .95rem; } tr { border-bottom: 1px solid var(--edge); }
th, td { padding: .4rem 1.2rem .4rem 0; text-align: left; vertical-align: top; }
td:nth-last-child(2) { white-space: nowrap; }
@media (max-width: 40rem) { .screen { height: 5.5rem; }
  .cards { grid-template-columns: 1fr 1fr; gap: .6rem; }
  thead { display: none; } tbody tr { display: grid; grid-template-columns: minmax(8rem, 1fr) auto; }
  td:nth-child(3) { grid-column: 1 / -1; padding-top: 0; color: var(--soft); } }
@media print { .screen::after, nav { display: none; } .card { break-inside: avoid; } }
pre { padding: 1rem; font: .88rem/1.6 ui-monospace, monospace; white-space: pre-wrap; }
"""
SCRIPT = """
const sounds = [...document.querySelectorAll("audio")];
for (const sound of sounds) {
  const button = sound.parentElement.querySelector("button");
  const picture = button.querySelector(".sound");
  sound.controls = false;
  button.onclick = event => {
    if (!sound.paused) return sound.pause();
    const box = picture.getBoundingClientRect(), at = (event.clientX - box.left) / box.width;
    sound.currentTime = event.detail && sound.duration > 2 && at < 1 ? at * sound.duration : 0;
    sound.play();
  };
  const follow = () => {
    button.classList.toggle("playing", !sound.paused);
    picture.style.setProperty("--at", 100 * sound.currentTime / sound.duration + "%");
    if (!sound.paused) requestAnimationFrame(follow);
  };
  sound.onplay = () => { sounds.forEach(other => other === sound || other.pause()); follow(); };
  sound.onpause = follow;
}
"""

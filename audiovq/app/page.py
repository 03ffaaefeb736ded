"""A page on this machine to play with a model: make, hear, see and change sounds.

What a move does stands in `desk`; here is what it looks like. The page loads nothing from outside,
and nobody outside reaches it: it listens on 127.0.0.1 alone. Several may use it at once: each has a
desk of their own, and moves are made one after another. Needs Gradio, the extra `[app]`.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import torch

from audiovq.app import desk as moves
from audiovq.app.desk import Desk, Item
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import SamplingConfig
from audiovq.generation.labels import learnt_values
from audiovq.models.model import Model
from audiovq.report import embed
from audiovq.runtime.files import VALUE
from audiovq.spectral import picture
from audiovq.spectral.spectrogram import waveform_images

try:
    import gradio as gr
except ImportError as error:
    raise AudiovqError("the app needs Gradio: pip install 'audiovq[app]'") from error

LARGEST_BYTES = 20 << 20
"""Of an upload."""
WAITING = 32
"""Moves that may wait for their turn; who comes later is told to."""
SESSIONS = 100
"""Desks that are kept; the one longest unused goes first."""
SECONDS_KEPT = 3600
"""How long uploads stay on the disk."""
ANY = "any"
EMPTY = "<p>Nothing is at hand yet.</p>"


def serve(model: Model, name: str, port: int) -> None:
    """Show the page on 127.0.0.1 until Ctrl-C. Raises AudiovqError as `start` does."""
    page = start(model, name, port)
    print(f"open {page.local_url} in a browser; Ctrl-C ends it", flush=True)
    try:
        threading.Event().wait()
    finally:
        page.close(verbose=False)


def start(model: Model, name: str, port: int) -> gr.Blocks:
    """Show the page on 127.0.0.1, and return at once.

    Raises AudiovqError where the model makes no codes, or the port is taken.
    """
    page = build(model, name)
    try:
        page.launch(
            server_name="127.0.0.1",
            server_port=port,
            share=False,
            quiet=True,
            inbrowser=False,
            prevent_thread_lock=True,
            max_file_size=LARGEST_BYTES,
            state_session_capacity=SESSIONS,
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            footer_links=[],
            theme=gr.themes.Base(font=("system-ui", "sans-serif"), font_mono=("monospace",)),
            css=STYLE,
        )
    except OSError as error:
        raise AudiovqError(f"port {port}: is taken; give another with --port") from error
    return page


def build(model: Model, name: str) -> gr.Blocks:
    """The page, its buttons bound to `model`. Raises AudiovqError where the model makes no codes."""
    _ = model.autoencoder.quantizer  # or it says that there are no codes
    page = gr.Blocks(
        title=f"audiovq: {name}",
        analytics_enabled=False,
        delete_cache=(SECONDS_KEPT, SECONDS_KEPT),
    )
    with page:
        gr.Markdown(
            f"# {escape(name)}\nMake sounds, or drop in a recording; then change the one at hand."
        )
        desk = gr.State(Desk(), time_to_live=SECONDS_KEPT)
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                asked = [
                    gr.Dropdown([ANY, *learnt_values(model, label)], value=ANY, label=label)
                    for label in model.labels
                ]
                number = gr.Slider(1, moves.MAX_SOUNDS, 4, step=1, label="how many")
                temperature = gr.Slider(0, 2, 0.8, step=0.05, label="temperature")
                guidance = gr.Slider(0, 5, 1, step=0.1, label="guidance")
                seed = gr.Number(-1, precision=0, label="seed (-1: another each time)")
                make = gr.Button("Make sounds", variant="primary")
                recording = gr.Audio(
                    type="filepath", sources=["upload", "microphone"], label="or a recording"
                )
            with gr.Column(scale=2, min_width=320):
                hand = gr.HTML(EMPTY, js_on_load=HAND_SCRIPT, apply_default_css=False)
                with gr.Row():
                    with gr.Column(min_width=140):
                        strength = gr.Slider(0, 1, 0.5, step=0.05, label="strength")
                        vary = gr.Button("Make variations")
                    with gr.Column(min_width=140):
                        seconds = gr.Slider(
                            0.2, moves.MAX_SECONDS, 1, step=0.1, label="seconds in all"
                        )
                        extend = gr.Button("Go on with it")
                    with gr.Column(min_width=140):
                        other = gr.Dropdown([], label="sound on the shelf", type="index")
                        morph = gr.Button("Morph to that one")
                shelf = gr.HTML(js_on_load=SHELF_SCRIPT, apply_default_css=False)

        settings = [*asked, temperature, guidance, seed]

        def bind(listen: Any, move: Callable[..., Desk], *inputs: Any, told: bool = False) -> None:
            """Where `listen` hears something, make the move and show the desk; `told`: the move is
            told what the page says of the event, as a dict."""

            def moved(before: Desk, *given: Any) -> list[Any]:
                try:
                    after = move(before, *given)
                except AudiovqError as error:
                    raise gr.Error(escape(str(error)), print_exception=False) from error
                names = [f"{i + 1}: {item.name}" for i, item in enumerate(after.shelf)]
                choices = gr.Dropdown(names, value=names[-1] if names else None)
                return [after, _hand(model, after), _shelf(model, after), choices, None]

            def heard(event: gr.EventData, before: Desk, *given: Any) -> list[Any]:
                return moved(before, event._data, *given)

            listen(
                heard if told else moved,
                [desk, *inputs],
                [desk, hand, shelf, other, recording],
                concurrency_id="model",
                concurrency_limit=1,
                api_visibility="private",
            )

        def how(*values: Any) -> tuple[dict[str, str], SamplingConfig, int]:
            """What `settings` say: labels, sampling, seed."""
            *chosen, temperature, guidance, seed = values
            labels = {k: v for k, v in zip(model.labels, chosen, strict=True) if v != ANY}
            seed = secrets.randbelow(1 << 31) if seed is None or seed < 0 else int(seed)
            return labels, SamplingConfig(temperature=temperature, guidance=guidance), seed

        bind(make.click, lambda d, n, *s: moves.make(model, d, int(n), *how(*s)), number, *settings)
        for given in (recording.upload, recording.stop_recording):
            bind(given, lambda d, path: moves.record(model, d, Path(path)), recording)
        bind(shelf.take, lambda d, said: moves.take(model, d, int(said["place"])), told=True)
        bind(
            hand.repaint,
            lambda d, said, *s: moves.repaint(model, d, said["cells"], *how(*s)),
            *settings,
            told=True,
        )
        bind(
            hand.write,
            lambda d, said: moves.write_codes(model, d, said["cells"], said["codes"]),
            told=True,
        )
        bind(hand.undo, lambda d, said: moves.undo(d), told=True)
        bind(
            vary.click,
            lambda d, n, strength, *s: moves.vary(model, d, int(n), strength, *how(*s)),
            *(number, strength, *settings),
        )
        bind(
            extend.click,
            lambda d, seconds, *s: moves.extend(model, d, seconds, *how(*s)),
            *(seconds, *settings),
        )
        bind(
            morph.click,
            lambda d, place, n: moves.morph(model, d, -1 if place is None else place, int(n)),
            *(other, number),
        )
    page.queue(max_size=WAITING)
    return page


def _shelf(model: Model, desk: Desk) -> str:
    """A card for each sound, with its picture, player, and what can be done with it."""
    cards = "".join(
        f'<figure><img src="{_picture(model, item)}" alt="Spectrogram of {escape(item.name)}">'
        f"<figcaption>{i + 1}: {escape(item.name)}</figcaption>{_player(model, item)}"
        f'<div class="tools"><button data-place="{i}">Play with it</button>'
        f"{_download(model, item)}</div></figure>"
        for i, item in enumerate(desk.shelf)
    )
    return f'<h2>Shelf</h2><div class="shelf">{cards}</div>' if cards else ""


def _hand(model: Model, desk: Desk) -> str:
    """The sound at hand: its codes as cells over its picture, and what can be done with them."""
    item = desk.selected
    codes = item.sound.encoded.codes
    quantizers, rows, columns = codes.shape
    grid = codes.permute(1, 2, 0).tolist()
    cells = "".join(
        '<div role="row">'
        + "".join(
            f'<button role="gridcell" tabindex="-1" aria-selected="false" data-cell="{row},{column}"'
            f' data-codes="{" ".join(map(str, cell))}" aria-label="row {row + 1}, column'
            f' {column + 1}, code {" ".join(map(str, cell))}"></button>'
            for column, cell in enumerate(grid[row])
        )
        + "</div>"
        for row in reversed(range(rows))
    )
    size = model.autoencoder.config.codebook_size
    numbers = "".join(
        f'<label>code{f" {i + 1}" * (quantizers > 1)} <input type="number" min="0"'
        f' max="{size - 1}" value="0"></label>'
        for i in range(quantizers)
    )
    name = escape(item.name)
    hop_length = model.spectrogram.config.hop_length
    shown = columns * model.autoencoder.stride[1] * hop_length / model.sample_rate
    return (
        f'<figure class="hand"><figcaption><b>{name}</b>'
        f" {len(item.sound.waveform) / model.sample_rate:.2f}\u202fs, {rows} × {columns} cells</figcaption>"
        f'<div class="scroll"><div class="field" data-seconds="{shown}"'
        f' style="--columns: {columns}; --rows: {rows}">'
        f'<img src="{_picture(model, item, whole=True)}" alt="Spectrogram of {name}"><i></i>'
        f'<div role="grid" aria-label="Codes of {name}, low tones at the bottom">{cells}</div></div></div>'
        f'{_player(model, item, "autoplay")}<div class="tools">'
        f'<button data-move="repaint">Draw the chosen cells anew</button>{numbers}'
        f'<button data-move="write">Write it there</button>'
        f'<button data-move="undo">Take back</button>{_download(model, item)}</div></figure>'
    )


def _picture(model: Model, item: Item, whole: bool = False) -> str:
    """The spectrogram as a data URI; `whole`: padded to whole cells."""
    (image,) = waveform_images(model.spectrogram, [item.sound.waveform])
    if whole:
        _, rows, columns = item.sound.encoded.codes.shape
        tall, wide = model.autoencoder.stride
        missing = (0, columns * wide - image.shape[2], 0, rows * tall - image.shape[1])
        image = torch.nn.functional.pad(image, missing)
    return picture.png(image[0].numpy())


def _player(model: Model, item: Item, also: str = "") -> str:
    uri = embed.wav(item.sound.waveform, model.sample_rate)
    return f'<audio controls {also} aria-label="{escape(item.name)}" src="{uri}"></audio>'


def _download(model: Model, item: Item) -> str:
    uri = embed.wav(item.sound.waveform, model.sample_rate)
    name = re.sub(r"[^\w.-]+", "-", item.name).strip("-")[:VALUE]
    return f'<a download="{escape(name)}.wav" href="{uri}">Download</a>'


STYLE = """
figure { margin: 0; min-width: 0; }
.shelf { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; }
.shelf figure, .hand { border: 1px solid var(--border-color-primary); border-radius: 8px;
  background: var(--block-background-fill); overflow: hidden; }
.shelf img { display: block; width: 100%; height: 6rem; background: #000004; }
figcaption { padding: .5rem .7rem; overflow-wrap: anywhere; }
audio { display: block; width: 100%; height: 36px; }
h2 { margin: 1rem 0 .5rem; font-weight: 600; } .tools a { text-decoration: underline; }
.tools { display: flex; flex-wrap: wrap; align-items: center; gap: .5rem; padding: .6rem .7rem; }
.tools button { padding: .25rem .7rem; border: 1px solid var(--border-color-primary);
  border-radius: 6px; background: var(--button-secondary-background-fill); cursor: pointer; }
.tools input { width: 5em; padding: .2rem .4rem; border: 1px solid var(--border-color-primary);
  border-radius: 6px; background: var(--input-background-fill); color: inherit; }
.scroll { overflow-x: auto; }
.field { position: relative; height: 16rem; min-width: calc(var(--columns) * 12px); overflow: hidden;
  background: #000004; }
.field img { position: absolute; width: 100%; height: 100%; }
.field i { position: absolute; inset: 0 auto 0 var(--at, -2px); border-left: 1px solid #fff; }
[role=grid] { position: absolute; inset: 0; display: grid; touch-action: pan-y;
  grid: repeat(var(--rows), 1fr) / repeat(var(--columns), 1fr); user-select: none; }
[role=row] { display: contents; }
[role=gridcell] { border: 1px solid #fff1; cursor: cell; }
[role=gridcell]:hover { border-color: #fff; }
[role=gridcell][aria-selected=true] { background: #5cf6; border-color: #9df; }
:focus-visible { outline: 2px solid #5bf !important; outline-offset: 1px; }
"""
SHELF_SCRIPT = """
element.addEventListener("click", event => {
  const button = event.target.closest("[data-place]");
  if (button) trigger("take", {place: Number(button.dataset.place)});
});
"""
HAND_SCRIPT = """
// From `anchor` to `head` is what is chosen, as [row, column]; it outlives every new picture.
let anchor = [0, 0], head = [0, 0], dragged = false, pressed = "";
const at = cell => cell.dataset.cell.split(",").map(Number);
const found = place => element.querySelector(`[data-cell="${place}"]`);
const between = (x, a, b) => Math.min(a, b) <= x && x <= Math.max(a, b);
const choose = (place, wider) => {
  if (!found(place)) return;
  head = place;
  if (!wider || !found(anchor)) anchor = place;
  for (const cell of element.querySelectorAll("[data-cell]")) {
    const [row, column] = at(cell);
    cell.ariaSelected = between(row, anchor[0], head[0]) && between(column, anchor[1], head[1]);
    cell.tabIndex = -1;
  }
  found(head).tabIndex = 0;
  const codes = found(head).dataset.codes.split(" ");
  element.querySelectorAll("input").forEach((input, i) => { input.value = codes[i]; });
};
const chosen = () => [...element.querySelectorAll('[aria-selected="true"]')].map(at);
element.addEventListener("pointerdown", event => {
  const cell = event.target.closest("[data-cell]");
  if (!cell) return;
  dragged = true;
  choose(at(cell), event.shiftKey);
});
element.addEventListener("pointermove", event => {
  const under = dragged && document.elementFromPoint(event.clientX, event.clientY);
  const cell = under && under.closest("[data-cell]");
  if (cell && at(cell).join() !== head.join()) choose(at(cell), true);
});
window.addEventListener("pointerup", () => { dragged = false; });
const steps = {ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1]};
element.addEventListener("keydown", event => {
  const step = steps[event.key];
  if (!step || !event.target.dataset.cell) return;
  event.preventDefault();
  choose([head[0] + step[0], head[1] + step[1]], event.shiftKey);
  found(head).focus();
});
element.addEventListener("click", event => {
  const button = event.target.closest("[data-move]");
  if (!button) return;
  pressed = button.dataset.move;
  const codes = [...element.querySelectorAll("input")].map(input => Number(input.value));
  if (pressed === "repaint") trigger("repaint", {cells: chosen()});
  if (pressed === "write") trigger("write", {cells: chosen(), codes});
  if (pressed === "undo") trigger("undo", {});
});
watch("value", () => {
  const last = head;
  choose(anchor);
  choose(last, true);
  const again = pressed && element.querySelector(`[data-move="${pressed}"]`);
  if (again && document.activeElement === document.body) again.focus();
  pressed = "";
});
document.addEventListener("play", event => {
  const others = [...document.querySelectorAll("audio")].filter(sound => sound !== event.target);
  for (const sound of others) sound.pause();
  const field = element.querySelector(".field");
  if (!field || !element.contains(event.target)) return;
  const wide = Number(field.dataset.seconds);
  const follow = () => {
    const sound = event.target;
    field.style.setProperty("--at", sound.ended ? "-2px" : 100 * sound.currentTime / wide + "%");
    if (!sound.paused) requestAnimationFrame(follow);
  };
  follow();
}, true);
"""

"""The page of the app: generate, play, view and edit sounds of a model in the browser, by Gradio.

`desk` holds the moves; this module lays out the page and connects its controls to them. The page loads
nothing from outside and is served on 127.0.0.1 only. Several users may have it open: each has a desk,
and moves run one at a time. Needs the extra `[app]`.
"""

from __future__ import annotations

import functools
import re
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
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
from audiovq.runtime.files import MAX_VALUE_CHARS
from audiovq.runtime.templates import asset, render
from audiovq.spectral import picture
from audiovq.spectral.spectrogram import waveform_images

try:
    import gradio as gr
except ImportError as error:
    raise AudiovqError("the app needs Gradio: pip install 'audiovq[app]'") from error

PACKAGE = "audiovq.app"
"""The package of the templates and assets."""
MAX_UPLOAD_BYTES = 20 << 20
MAX_WAITING = 32
"""Maximum number of queued moves; more are rejected with a message."""
MAX_SESSIONS = 100
"""Maximum number of desks; the least recently used is dropped first."""
SECONDS_KEPT = 3600
"""How long uploads and unused desks are kept."""
ANY = "any"
NO_SOUND = "<p>No sound selected.</p>"


def serve(model: Model, name: str, port: int) -> None:
    """Serve the page on 127.0.0.1 until Ctrl-C. Raises AudiovqError as `start` does."""
    page = start(model, name, port)
    print(f"serving on {page.local_url}: open it in a browser; Ctrl-C stops the server", flush=True)
    try:
        threading.Event().wait()
    finally:
        page.close(verbose=False)


def start(model: Model, name: str, port: int) -> gr.Blocks:
    """Serve the page on 127.0.0.1 in the background.

    Raises AudiovqError if the model has no codes, or the port is in use.
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
            max_file_size=MAX_UPLOAD_BYTES,
            state_session_capacity=MAX_SESSIONS,
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            footer_links=[],
            theme=gr.themes.Base(font=("system-ui", "sans-serif"), font_mono=("monospace",)),
            css=asset(PACKAGE, "app.css"),
        )
    except OSError as error:
        raise AudiovqError(f"port {port}: is taken; give another with --port") from error
    return page


def build(model: Model, name: str) -> gr.Blocks:
    """The page, its controls connected to `model`. Raises AudiovqError if the model has no codes."""
    _ = model.autoencoder.quantizer  # raises AudiovqError without codes
    page = gr.Blocks(
        title=f"audiovq: {name}",
        analytics_enabled=False,
        delete_cache=(SECONDS_KEPT, SECONDS_KEPT),
    )
    with page:
        gr.Markdown(
            f"# {escape(name)}\nGenerate sounds or drop in a recording; then edit the selected one."
        )
        _connect(model, _layout(model))
    page.queue(max_size=MAX_WAITING)
    return page


@dataclass(frozen=True)
class _Controls:
    """The components that moves read, listen to, or update."""

    desk: gr.State
    labels: list[gr.Dropdown]
    number: gr.Slider
    temperature: gr.Slider
    guidance: gr.Slider
    seed: gr.Number
    generate: gr.Button
    recording: gr.Audio
    selected: gr.HTML
    strength: gr.Slider
    vary: gr.Button
    seconds: gr.Slider
    extend: gr.Button
    target: gr.Dropdown
    morph: gr.Button
    shelf: gr.HTML


def _layout(model: Model) -> _Controls:
    """Create all components, inside the `gr.Blocks` that is open."""
    desk = gr.State(Desk(), time_to_live=SECONDS_KEPT)
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            labels = [
                gr.Dropdown([ANY, *learnt_values(model, label)], value=ANY, label=label)
                for label in model.labels
            ]
            number = gr.Slider(1, moves.MAX_SOUNDS, 4, step=1, label="number of sounds")
            temperature = gr.Slider(0, 2, 0.8, step=0.05, label="temperature")
            guidance = gr.Slider(0, 5, 1, step=0.1, label="guidance")
            seed = gr.Number(-1, precision=0, label="seed (-1 = random)")
            generate = gr.Button("Generate", variant="primary")
            recording = gr.Audio(
                type="filepath", sources=["upload", "microphone"], label="or drop in a recording"
            )
        with gr.Column(scale=2, min_width=320):
            selected = gr.HTML(
                NO_SOUND, js_on_load=asset(PACKAGE, "selected.js"), apply_default_css=False
            )
            with gr.Row():
                with gr.Column(min_width=140):
                    strength = gr.Slider(0, 1, 0.5, step=0.05, label="strength")
                    vary = gr.Button("Vary")
                with gr.Column(min_width=140):
                    seconds = gr.Slider(0.2, moves.MAX_SECONDS, 1, step=0.1, label="total seconds")
                    extend = gr.Button("Continue")
                with gr.Column(min_width=140):
                    target = gr.Dropdown([], label="sound on the shelf", type="index")
                    morph = gr.Button("Morph to this sound")
            shelf = gr.HTML(js_on_load=asset(PACKAGE, "shelf.js"), apply_default_css=False)
    return _Controls(
        desk,
        labels,
        number,
        temperature,
        guidance,
        seed,
        generate,
        recording,
        selected,
        strength,
        vary,
        seconds,
        extend,
        target,
        morph,
        shelf,
    )


def _connect(model: Model, on: _Controls) -> None:
    """Connect events of the page to moves of the desk."""
    settings = [*on.labels, on.temperature, on.guidance, on.seed]
    bind = functools.partial(_bind, model, on)
    read = functools.partial(_read_settings, model)
    bind(
        on.generate.click,
        lambda d, n, *s: moves.make(model, d, int(n), *read(*s)),
        *(on.number, *settings),
    )
    for arrival in (on.recording.upload, on.recording.stop_recording):
        bind(arrival, lambda d, path: moves.record(model, d, Path(path)), on.recording)
    bind(on.shelf.take, lambda d, data: moves.take(d, int(data["index"])), event=True)
    bind(
        on.selected.repaint,
        lambda d, data, *s: moves.repaint(model, d, data["cells"], *read(*s)),
        *settings,
        event=True,
    )
    bind(
        on.selected.write,
        lambda d, data: moves.write_codes(model, d, data["cells"], data["codes"]),
        event=True,
    )
    bind(on.selected.undo, lambda d, data: moves.undo(d), event=True)
    bind(
        on.vary.click,
        lambda d, n, strength, *s: moves.vary(model, d, int(n), strength, *read(*s)),
        *(on.number, on.strength, *settings),
    )
    bind(
        on.extend.click,
        lambda d, seconds, *s: moves.extend(model, d, seconds, *read(*s)),
        *(on.seconds, *settings),
    )
    bind(
        on.morph.click,
        lambda d, index, n: moves.morph(model, d, -1 if index is None else index, int(n)),
        *(on.target, on.number),
    )


def _bind(
    model: Model,
    on: _Controls,
    listen: Any,
    move: Callable[..., Desk],
    *inputs: Any,
    event: bool = False,
) -> None:
    """At the event `listen`, run `move(desk, *inputs)` and show the new desk.

    With `event`, the data of the event, a dict, is the first input.
    """

    def show(before: Desk, *values: Any) -> list[Any]:
        try:
            after = move(before, *values)
        except AudiovqError as error:
            raise gr.Error(escape(str(error)), print_exception=False) from error
        names = [f"{i + 1}: {item.name}" for i, item in enumerate(after.shelf)]
        choices = gr.Dropdown(names, value=names[-1] if names else None)
        return [after, selected_html(model, after), shelf_html(model, after), choices, None]

    def show_event(data: gr.EventData, before: Desk, *values: Any) -> list[Any]:
        return show(before, data._data, *values)

    listen(
        show_event if event else show,
        [on.desk, *inputs],
        [on.desk, on.selected, on.shelf, on.target, on.recording],
        concurrency_id="model",
        concurrency_limit=1,
        api_visibility="private",
    )


def _read_settings(model: Model, *values: Any) -> tuple[dict[str, str], SamplingConfig, int]:
    """Labels, sampling and seed from the values of their controls."""
    *chosen, temperature, guidance, seed = values
    labels = {k: v for k, v in zip(model.labels, chosen, strict=True) if v != ANY}
    seed = secrets.randbelow(1 << 31) if seed is None or seed < 0 else int(seed)
    return labels, SamplingConfig(temperature=temperature, guidance=guidance), seed


@dataclass(frozen=True)
class View:
    """A sound as the templates show it."""

    name: str
    seconds: float
    picture: str
    """Spectrogram as a data URI."""
    wav: str
    """Waveform as a data URI."""
    file_name: str
    """Suggested name for a download."""


def shelf_html(model: Model, desk: Desk) -> str:
    """The sounds on the shelf as cards."""
    return render(PACKAGE, "shelf.html", sounds=[_view(model, item) for item in desk.shelf])


def selected_html(model: Model, desk: Desk) -> str:
    """The selected sound with its codes, (quantizers, rows, columns), as cells."""
    item = desk.selected
    codes = item.sound.encoded.codes
    quantizers, rows, columns = codes.shape
    samples = columns * model.autoencoder.stride[1] * model.spectrogram.config.hop_length
    return render(
        PACKAGE,
        "selected.html",
        sound=_view(model, item, whole_cells=True),
        quantizers=quantizers,
        rows=rows,
        columns=columns,
        cells=[
            [" ".join(map(str, cell)) for cell in row] for row in codes.permute(1, 2, 0).tolist()
        ],
        codebook_size=model.autoencoder.config.bottleneck.num_codes,
        shown_seconds=samples / model.sample_rate,
    )


def _view(model: Model, item: Item, whole_cells: bool = False) -> View:
    file_name = re.sub(r"[^\w.-]+", "-", item.name).strip("-")[:MAX_VALUE_CHARS]
    return View(
        item.name,
        item.sound.waveform.shape[-1] / model.sample_rate,
        _picture(model, item, whole_cells),
        embed.wav(item.sound.waveform, model.sample_rate),
        f"{file_name}.wav",
    )


def _picture(model: Model, item: Item, whole_cells: bool) -> str:
    """The spectrogram as a data URI, padded to whole cells on request."""
    (image,) = waveform_images(model.spectrogram, [item.sound.waveform])
    if whole_cells:
        _, rows, columns = item.sound.encoded.codes.shape
        tall, wide = model.autoencoder.stride
        missing = (0, columns * wide - image.shape[2], 0, rows * tall - image.shape[1])
        image = torch.nn.functional.pad(image, missing)
    return picture.png(image[0].numpy())

"""The report page: valid HTML, self-contained, all sounds and pictures readable, no script injected."""

import base64
import hashlib
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from matplotlib import colormaps
from matplotlib.image import imread

from audiovq.report.axes import Tick
from audiovq.report.sections import Group, Picture, Report, write

RATE = 8000
VOID = {"meta", "link", "img"}
NASTY = "</title><script>alert('a')</script> \"q\" onload='x' & $title ü \udcff"


class Page(HTMLParser):
    """A parsed page: its elements and text; fails if a tag is not closed where it should be."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def find_all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def picture(title: str, seconds: float = 0.1, frames: int = 13, seed: int = 0) -> Picture:
    generator = np.random.default_rng(seed)
    waveform = generator.uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)
    return Picture(title, waveform, generator.uniform(0, 1, (16, frames)).astype(np.float32))


def metrics() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in (100, 200, 300):
        common = {
            "measured_on": "validation",
            "step": step,
            "seconds": step / 10,
            "loss": 50 / step,
        }
        error = {"validation_error_db": 900 / step, "validation_perplexity": 5.0}
        rows.append({"stage": "autoencoder", **common, **error})
    for step in (100, 200):
        bits = {
            "measured_on": "validation",
            "validation_bits_per_code": 2.9,
            "uniform_bits": 3.0,
            "unigram_bits": 2.5,
        }
        rows.append({"stage": "prior", "step": step, "seconds": 30.0, "loss": math.log(2), **bits})
    return rows


def report(**replaced: Any) -> Report:
    compared = [picture(t, seed=i) for i, t in enumerate(("recording", "coded", "ceiling"), 2)]
    values: dict[str, Any] = {
        "title": "Digits",
        "verdict": "92 % recognizable, no copies; more recordings of claps would help most.",
        "channels": 1,
        "sample_rate": RATE,
        "generated": [picture("7 · alice"), picture("3 · ben", 0.05, 7, seed=1)],
        "copies": 0,
        "data": "9 recordings",
        "comparisons": [Group("1 · ben", compared)],
        "compared": "test clips",
        "codes": [
            Group("31 to 281 Hz", [picture("code 3", seed=5), picture("nearest: 0", seed=6)])
        ],
        "metrics": metrics(),
        "code_counts": np.array([[4, 0, 4, 8, 0, 0, 0, 0]]),
        "code_points": np.arange(16, dtype=np.float32).reshape(8, 2),
        "figures": [("Error", "3.9 dB", "Mean error.")],
        "settings": {"seed": 0, "prior": {"dim": 192, "inner": {"on": True}}},
        "commands": ["audiovq train digits", "audiovq report digits"],
        "next_steps": ["audiovq app digits", "audiovq pack digits my-kit"],
    }
    return Report(**{**values, **replaced})


def parsed(tmp_path: Path, **replaced: Any) -> Page:
    path = tmp_path / "report.html"
    write(path, report(**replaced))
    return Page(path.read_text(encoding="utf-8"))


def all_pictures(shown: Report) -> list[Picture]:
    """All sounds of a page, in order."""
    groups = [*shown.comparisons, *shown.codes]
    return [*shown.generated, *(picture for group in groups for picture in group.pictures)]


def decoded(uri: str, kind: str) -> io.BytesIO:
    head, _, data = uri.partition(",")
    assert head == f"data:{kind};base64"
    return io.BytesIO(base64.b64decode(data, validate=True))


def test_a_sound_that_is_only_a_beginning_says_so_in_its_caption_and_file_name(
    tmp_path: Path,
) -> None:
    whole = picture("hat")
    beginning = replace(picture("ride", 0.5), num_samples=2 * RATE)
    page = parsed(tmp_path, generated=[whole, beginning])
    assert "0.50 of 2.00" in page.text
    assert "this page has the beginning" in page.text
    names = [link["download"] for link in page.find_all("a") if "download" in link]
    assert names[:2] == ["hat.wav", "ride-beginning.wav"]
    exactly = replace(whole, num_samples=whole.waveform.shape[-1])
    assert "beginning" not in parsed(tmp_path, generated=[exactly]).text


def test_new_sounds_are_said_to_be_decoded_as_coded_only_where_they_are(tmp_path: Path) -> None:
    for same in (False, True):
        said = "cannot be clearer than" in parsed(tmp_path, same_decoder=same).text
        assert said == same


def test_minutes_of_a_further_training_are_added(tmp_path: Path) -> None:
    rows = [
        {"stage": stage, "step": step, "seconds": seconds}
        for seconds_of_all in ((300.0, 600.0), (60.0, 120.0))
        for stage in ("autoencoder", "prior")
        for step, seconds in enumerate(seconds_of_all)
    ]
    assert "trained in 24 min" in parsed(tmp_path, metrics=rows).text


def test_the_page_begins_with_the_verdict_and_folds_the_notebook_away(tmp_path: Path) -> None:
    page = parsed(tmp_path)
    assert len(page.find_all("h1")) == 1
    words = " ".join(page.text.split("Digits")[2].split())
    assert words.startswith("92 % recognizable, no copies; more recordings of claps would help")
    assert "2 new sounds · 8 kHz · 8 codes · trained in 1 min · 9 recordings" in page.text
    shown, _, folded = page.html.partition("<details")
    for part in ("New sounds", "Reconstructions", "What next"):
        assert f">{part}</h2>" in shown
    for part in ("Metrics", "Codebook", "Curves", "Settings", "Commands"):
        assert f">{part}</h2>" in folded
    assert "open" not in page.find_all("details")[0]
    assert "prior · inner · on" in page.text
    assert "audiovq train digits\naudiovq report digits" in page.text
    assert "audiovq app digits\naudiovq pack digits my-kit" in shown


def test_percent_are_written_in_one_way(tmp_path: Path) -> None:
    html = parsed(tmp_path).html
    text = re.sub(r"<(style|script)>.*?</\1>|<[^>]*>", " ", html, flags=re.DOTALL)
    assert re.findall(r"\d %", text)
    assert not re.findall(r"\d%", text)


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    page = parsed(tmp_path)
    assert "http://" not in page.html
    assert "https://" not in page.html
    for tag, attributes in page.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("data:", "#")), tag
    assert "url(" not in page.html
    assert "@import" not in page.html


def test_every_sound_is_a_valid_wav(tmp_path: Path) -> None:
    page = parsed(tmp_path)
    shown = all_pictures(report())
    assert len(page.find_all("audio")) == len(shown)
    for attributes, expected in zip(page.find_all("audio"), shown, strict=True):
        assert "controls" in attributes
        assert expected.title in attributes["aria-label"]
        samples, rate = soundfile.read(decoded(attributes["src"], "audio/wav"), dtype="float32")
        assert rate == RATE
        np.testing.assert_allclose(samples, expected.waveform, atol=1 / 32768)


def test_sounds_above_full_scale_are_scaled_not_clipped(tmp_path: Path) -> None:
    loud = Picture("loud", np.array([4, -2, np.nan], np.float32), np.ones((4, 2), np.float32))
    page = parsed(tmp_path, generated=[loud], comparisons=[], codes=[])
    samples, _ = soundfile.read(decoded(page.find_all("audio")[0]["src"], "audio/wav"))
    np.testing.assert_allclose(samples, [1, -0.5, 0], atol=1e-4)


def test_every_picture_is_a_valid_png_with_the_lowest_frequency_at_the_bottom(
    tmp_path: Path,
) -> None:
    page = parsed(tmp_path)
    shown = all_pictures(report())
    assert len(page.find_all("img")) == len(shown)
    for attributes, expected in zip(page.find_all("img"), shown, strict=True):
        assert expected.title in attributes["alt"]
        pixels = imread(decoded(attributes["src"], "image/png"))[..., :3]
        colours = colormaps["magma"](expected.spectrogram[::-1])[..., :3]
        np.testing.assert_allclose(pixels, colours, atol=0.01)


def test_every_picture_has_axes_in_seconds_and_hz(tmp_path: Path) -> None:
    sound = replace(picture("long", 0.5), hertz=[Tick(0.25, "500"), Tick(0.75, "2k")])
    page = parsed(tmp_path, generated=[sound], comparisons=[], codes=[])
    text = " ".join(page.text.split())
    assert "500 2k Hz 0.0 0.2 0.4 s long 0.50" in text
    lefts = re.findall(r'style="left:([\d.]+)%"', page.html)
    assert lefts == ["0.0", "40.0", "80.0"]


def test_a_stereo_sound_is_played_in_stereo_and_shows_where_it_is(tmp_path: Path) -> None:
    mono = picture("moving", 0.5)
    gains = np.linspace(0, 1, mono.waveform.size, dtype=np.float32)
    moving = replace(mono, waveform=np.stack([mono.waveform * (1 - gains), mono.waveform * gains]))
    page = parsed(tmp_path, generated=[moving], channels=2, comparisons=[], codes=[])
    (audio,) = page.find_all("audio")
    assert soundfile.info(decoded(audio["src"], "audio/wav")).channels == 2
    assert "8 kHz stereo" in page.text
    (line,) = (a for a in page.find_all("polyline") if "class" not in a)
    heights = [float(point.split(",")[1]) for point in line["points"].split()]
    assert heights == sorted(heights)
    assert heights[0] < 5
    assert heights[-1] > 95


def test_every_string_is_escaped(tmp_path: Path) -> None:
    page = parsed(
        tmp_path,
        title=NASTY,
        verdict=NASTY,
        generated=[picture(NASTY)],
        comparisons=[Group(NASTY, [picture(NASTY), picture(NASTY)])],
        codes=[Group(NASTY, [picture(NASTY)])],
        figures=[(NASTY, NASTY, NASTY)],
        settings={NASTY: {NASTY: NASTY}, "list": [NASTY]},
        commands=[NASTY],
        next_steps=[NASTY],
    )
    plain = parsed(tmp_path, generated=[picture("a")])
    assert len(page.find_all("script")) == 1
    assert not any("onload" in attributes for _, attributes in page.elements)
    assert {tag for tag, _ in page.elements} == {tag for tag, _ in plain.elements}
    shown = NASTY.replace("\udcff", "?")  # a lone surrogate has no UTF-8
    assert page.text.count(shown) == 17
    assert page.find_all("img")[0]["alt"] == f"Spectrogram of {shown}"
    assert page.find_all("audio")[0]["aria-label"] == shown


def test_every_sound_has_a_play_button_with_its_name(tmp_path: Path) -> None:
    page = parsed(tmp_path)
    players = [attributes["aria-label"] for attributes in page.find_all("audio")]
    buttons = [a["aria-label"] for a in page.find_all("button") if a["class"] == "screen"]
    assert buttons == [f"Play {name}" for name in players]
    saves = [a["aria-label"] for a in page.find_all("a")]
    assert saves == [f"Save {name} as a WAV" for name in players]
    assert "1 · ben: coded" in players
    groups = [a["aria-label"] for a in page.find_all("div") if a.get("role") == "group"]
    assert groups == ["1 · ben", "31 to 281 Hz"]


def test_the_map_shows_used_codes_with_area_by_frequency(tmp_path: Path) -> None:
    page = parsed(tmp_path)
    codes = [a for a in page.find_all("circle") if a["class"] == "code"]
    assert [float(a["r"]) for a in codes] == [4.2, 4.2, 6.0]  # of 4, 4 and 8 uses
    for a in codes:
        assert 0 <= float(a["cx"]) - float(a["r"]) <= float(a["cx"]) + float(a["r"]) <= 400
        assert 0 <= float(a["cy"]) - float(a["r"]) <= float(a["cy"]) + float(a["r"]) <= 230


def test_the_caption_of_code_use_names_usage_and_perplexity(tmp_path: Path) -> None:
    text = parsed(tmp_path).text
    assert "3 of 8 codes in use (38 %)" in text
    assert "effectively 3 (perplexity)" in text  # exp(1.04), entropy of 1/2, 1/4, 1/4
    residual = parsed(tmp_path, code_counts=np.array([[1, 1, 1, 1], [0, 0, 0, 0]])).text
    assert "2 × 4 codes" in residual
    assert "4 of 4 codes in use (100 %), effectively 4" in residual
    assert "0 of 4 codes in use (0 %)" in residual


def test_the_charts_of_a_large_codebook_stay_small(tmp_path: Path) -> None:
    many, points = np.arange(65_536), np.zeros((65_536, 2), np.float32)
    page = parsed(
        tmp_path, code_counts=many[None], code_points=points, generated=[], comparisons=[], codes=[]
    )
    assert len(page.html) < 300_000


def test_curves_show_the_last_values_and_baselines(tmp_path: Path) -> None:
    page = parsed(tmp_path)
    text = " ".join(page.text.split())
    assert "training 1 validation clips 2.9" in text  # ln 2 nats are one bit
    for words in ("baseline: code frequencies 2.5", "baseline: uniform 3", "validation clips 3"):
        assert words in text
    assert len(page.find_all("svg")) == 6
    for attributes in page.find_all("svg"):
        assert attributes["role"] == "img"
        assert attributes["aria-label"]
    for line in page.find_all("polyline"):
        for x, y in (point.split(",") for point in line["points"].split()):
            assert 46 <= float(x) <= 378
            assert 24 <= float(y) <= 192


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None, "broken"])
def test_values_that_are_not_finite_numbers_are_skipped(tmp_path: Path, bad: Any) -> None:
    rows = metrics()
    rows[1] |= {"loss": bad, "validation_error_db": bad}
    rows += [{"stage": "other", "step": 1, "loss": bad}]
    page = parsed(tmp_path, metrics=rows)
    assert len(page.find_all("svg")) == 6
    assert "nan" not in " ".join(line["points"] for line in page.find_all("polyline"))
    alone = parsed(tmp_path, metrics=[{"stage": "prior", "step": 10, "loss": bad}])
    assert "Curves" not in alone.text


def test_curves_of_one_point_and_constant_curves_are_drawn(tmp_path: Path) -> None:
    rows = [{"stage": "prior", "step": step, "seconds": 1, "loss": 0.0} for step in (0, 5)]
    for selected in (rows[:1], rows[1:], rows):
        no_codes = {"code_counts": np.zeros((0, 4)), "code_points": np.zeros((0, 2))}
        assert len(parsed(tmp_path, metrics=selected, **no_codes).find_all("svg")) == 1


def test_empty_sections_are_omitted(tmp_path: Path) -> None:
    page = parsed(
        tmp_path,
        verdict="",
        generated=[],
        comparisons=[],
        codes=[],
        code_points=np.zeros((0, 2), np.float32),
        metrics=[],
        code_counts=np.zeros((0, 512), np.int64),
        figures=[],
        settings={},
        commands=[],
        next_steps=[],
    )
    for tag in ("h2", "section", "audio", "img", "svg", "table", "details", "pre", "a"):
        assert page.find_all(tag) == []
    assert "Digits" in page.text
    assert "codes" not in page.text


def test_a_sound_without_samples_is_shown(tmp_path: Path) -> None:
    empty = Picture("empty", np.zeros(0, np.float32), np.zeros((16, 0), np.float32))
    page = parsed(tmp_path, generated=[empty], comparisons=[], codes=[])
    assert soundfile.info(decoded(page.find_all("audio")[0]["src"], "audio/wav")).frames == 0
    assert imread(decoded(page.find_all("img")[0]["src"], "image/png")).shape[:2] == (1, 1)


def test_the_content_policy_allows_only_the_page_s_script(tmp_path: Path) -> None:
    page = parsed(tmp_path)
    script = page.html.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(a["content"] for a in page.find_all("meta") if "http-equiv" in a)
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_forty_sounds_stay_under_two_megabytes(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    noise = generator.uniform(0, 1, (64, 63)).astype(np.float32)  # the worst case for PNG
    sound = Picture("noise", generator.uniform(-1, 1, 4000).astype(np.float32), noise)
    groups = [Group("three", [sound] * 3)] * 8
    write(tmp_path / "a.html", report(generated=[sound] * 40, comparisons=groups))
    assert (tmp_path / "a.html").stat().st_size < 2_000_000


def test_metrics_read_from_json_give_the_same_page(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in map(json.dumps, metrics())]
    assert parsed(tmp_path, metrics=rows).html == parsed(tmp_path).html


def test_the_axis_of_a_single_value_includes_it(tmp_path: Path) -> None:
    for value in (3.67, 0.0, 512.0, -2.5):
        row = {"stage": "autoencoder", "step": 800, "validation_error_db": value}
        no_codes = {"code_counts": np.zeros((0, 4)), "code_points": np.zeros((0, 2))}
        page = parsed(tmp_path, metrics=[row], codes=[], **no_codes)
        ticks = {
            float(x.replace(",", "")) for x in re.findall(r'class="end">(-?[\d,.]+)<', page.html)
        }
        assert min(ticks) < value < max(ticks)
        assert 3 <= len(ticks) <= 8
        (dot,) = (a for a in page.find_all("circle"))
        assert 24 < float(dot["cy"]) < 192


def test_copies_are_mentioned_only_if_they_were_searched_for(tmp_path: Path) -> None:
    says = {
        None: "not compared with its training clips",
        0: "none is a near copy of a training clip",
        1: "near copies of training clips: 1 of 2",
    }
    for copies, words in says.items():
        page = parsed(tmp_path, copies=copies)
        assert [w for w in says.values() if w in page.html] == [words]
        assert "None of these was recorded" not in page.html

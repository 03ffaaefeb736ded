"""README and guide are true: their Python runs, their commands exist, their files are there."""

import importlib.util
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fast_training import CONFIG, train

from audiovq.config.spectrogram import PreprocessConfig
from audiovq.preprocessing.preprocess import preprocess

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/guide.md")
README, CHINESE = (
    "".join((ROOT / page.replace(".md", suffix)).read_text(encoding="utf-8") for page in PAGES)
    for suffix in (".md", ".zh-CN.md")
)
FILM_BYTES = 2_000_000
"""Most bytes of the film that README begins with."""


def test_the_example_runs(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in digits.glob("*_ben_*.wav"):
        (tmp_path / "ben").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "ben")
    config = PreprocessConfig(labels=r"(?P<digit>\d)_")
    preprocess(tmp_path / "ben", tmp_path / "dataset", config, say=lambda _: None)
    train(tmp_path / "dataset", tmp_path / "demo" / "model", CONFIG, say=lambda _: None)
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, object] = {}
    exec(example, names)
    assert (tmp_path / "seven.wav").stat().st_size > 44
    sounds, waveforms = names["sounds"], names["waveforms"]
    assert isinstance(sounds, list)
    assert isinstance(waveforms, list)
    assert [len(sound.waveform) for sound in sounds] == [len(w) for w in waveforms]


def test_the_table_lists_exactly_the_verbs() -> None:
    from audiovq.cli.main import _verbs

    for page in (README, CHINESE):
        rows = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
        assert set(rows) == set(_verbs([]))


def test_both_languages_have_the_same_commands_figures_and_links() -> None:
    """Figures are held against the results in `tests/whole/test_claims.py`."""
    pages = [
        re.sub(r"\.zh-CN|(README|guide)(\.zh-CN)?\.md", "", page) for page in (README, CHINESE)
    ]
    for pattern, prepare in (
        (r"```.*?```", lambda found: found),  # in the same order
        (r"(?<!`)`[^`\n]+`(?!`)", lambda found: sorted(set(found))),
        (r"\d[\d,.]*\d|\d", sorted),
        (r"^#+ ", lambda found: found),
        (r"^\| ", lambda found: found),
    ):
        first, second = (
            prepare(re.findall(pattern, page, re.DOTALL | re.MULTILINE)) for page in pages
        )
        assert first == second
    first, second = (set(re.findall(r"\]\(([^)#]*)", page)) for page in pages)
    assert first == second


def test_every_command_parses() -> None:
    from audiovq.cli.main import _parse

    blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```", README, re.DOTALL | re.MULTILINE))
    commands = re.findall(r"(?:^|&& )(audiovq .*)$", blocks, re.MULTILINE)
    commands += re.findall(r"`(audiovq [a-z]+ [^`]*)`", README)
    assert len(commands) > 12
    for command in commands:
        assert callable(_parse(shlex.split(command)[1:])), command


def test_the_page_of_verbs_equals_the_help_texts() -> None:
    spec = importlib.util.spec_from_file_location("make_verbs", ROOT / "docs" / "make_verbs.py")
    assert spec is not None
    assert spec.loader is not None
    make_verbs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_verbs)
    page = (ROOT / "docs" / "verbs.md").read_text(encoding="utf-8")
    assert page.split() == make_verbs.pages().split(), "run python docs/make_verbs.py"
    assert "audiovq decode [-h] [DECODE OPTIONS] MODEL SOURCE OUT" in page


def test_every_link_has_a_target() -> None:
    for name in (*PAGES, *(page.replace(".md", ".zh-CN.md") for page in PAGES)):
        page = ROOT / name
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), (name, target)


def test_the_readme_begins_with_a_film_and_is_short() -> None:
    from PIL import Image

    for name in ("README.md", "README.zh-CN.md"):
        page = (ROOT / name).read_text(encoding="utf-8")
        (first, *_) = re.findall(r"!\[[^\]]+\]\(([^)]*)\)", page)
        assert page.index(first) < page.index("```")
        with Image.open(ROOT / first) as film:
            assert getattr(film, "n_frames", 1) > 10
        assert (ROOT / first).stat().st_size <= FILM_BYTES
        assert len(page.splitlines()) < 100


def test_inspect_and_readme_name_the_same_commands(tmp_path: Path) -> None:
    """For a folder of several hundred recordings; settings that suit it follow."""
    from audiovq.inspection.inspect import inspect

    digits = ROOT / "data" / "digits"
    if not digits.is_dir():
        pytest.skip("the digits come with the repository")
    block = re.findall(r"```\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)[1]
    named = inspect(digits).commands
    for line, command in zip(block.splitlines(), named, strict=True):
        assert re.sub(r"\S*digits", "my-sounds", command).startswith(line)


def test_inspect_and_guide_name_the_same_commands_for_few_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from audiovq.inspection.inspect import inspect

    monkeypatch.chdir(tmp_path)
    Path("my-sounds").mkdir()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 6000)
    soundfile.write("my-sounds/noise.wav", noise, 44_100)
    guide = (ROOT / "docs" / "guide.md").read_text("utf-8")
    (block,) = re.findall(r"```\n(audiovq [^`]*--like sounds\n[^`]*)```", guide)
    for line, command in zip(block.splitlines(), inspect("my-sounds").commands[:2], strict=False):
        assert command.startswith(line)

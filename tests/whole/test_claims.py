"""Every number in the READMEs has a source: a results file, a setting or a bundled file.

`claims` is the table: a fragment of the English README and one of the Chinese README, with format fields
for numbers, and their values, rounded as the fields say. A fragment that is missing from a
README fails, and so does a number that no fragment covers. Commands and names between backticks are not
covered; they must parse (`tests/documents/test_readme.py`).
"""

import importlib.util
import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from audiovq.config.presets import PRESETS
from audiovq.config.sampling import (
    GUIDANCE,
    GUIDANCE_ABOVE_24_KHZ,
    STEPS,
    STEPS_OF_PART,
    SamplingConfig,
)
from audiovq.evaluation.fidelity import PAUSE_SECONDS
from audiovq.evaluation.verdict import FEW_CLIPS

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
SAMPLING = "2026-11-28-cpu-1-core-sampling.json"
SAMPLING_DIGITS = "2026-11-28-cpu-1-core-sampling-digits.json"
QUALITY = "cpu-2-cores-fsdd-quality.json"
SMALL = "2026-11-26-cpu-2-cores-fsdd-small.json"
SHIPPED = "2026-11-28-cpu-1-core-shipped.json"
SPELT = {
    "en": {
        2: "two",
        3: "three",
        5: "five",
        6: "six",
        7: "seven",
        8: "eight",
        10: "ten",
        12: "twelve",
        40: "forty",
    },
    "zh": {2: "两", 3: "三", 5: "五", 6: "六", 7: "七", 8: "八", 10: "十", 12: "十二", 40: "四十"},
}
NUMBER = {
    "en": re.compile(
        r"\d[\d,.]*|\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty|"
        r"forty|fifty|sixty|hundreds?|thousands?|millions?|dozens?|half|twice|thrice)\b",
        re.IGNORECASE,
    ),
    "zh": re.compile(r"\d[\d,.]*|[二两三四五六七八九十百千万半]+"),
}
PAGES = {
    "en": ("README.md", "docs/guide.md"),
    "zh": ("README.zh-CN.md", "docs/guide.zh-CN.md"),
}
"""README and guide in each language."""
NOTES = "2026-11-29-cpu-1-core-sounds-notes-muon.json"
NOTES_RATE = "2026-11-30-cpu-1-core-sounds-notes-rate-4k.json"
INSTALL = "2026-11-28-cpu-2-cores-install.json"

pytestmark = pytest.mark.skipif(
    not RESULTS.is_dir(), reason="benchmarks/ comes with the repository, not the package"
)


class Spelt(int):
    """A number that a README writes as a word; the format is the language."""

    def __format__(self, language: str) -> str:
        return SPELT[language][self]


@dataclass(frozen=True)
class Claim:
    """A fragment of each README, and the numbers in it."""

    english: str
    chinese: str
    values: tuple[Any, ...] = ()

    @cache  # noqa: B019, a hundred claims that live as long as the tests
    def said(self, language: str) -> re.Pattern[str]:
        """Pattern of the fragment in a README, with any line breaks."""
        if language == "en":
            words = self.english.format(*self.values).split()
            # Not within a longer number: 13 and 3.5 do not contain 3.
            return re.compile(
                r"(?<!\d)(?<!\d[.,])" + r"\s+".join(map(re.escape, words)) + r"(?![\d])"
            )
        characters = "".join(self.chinese.format(*self.values).split())
        return re.compile(
            r"(?<!\d)(?<!\d[.,])" + r"\s*".join(map(re.escape, characters)) + r"(?![\d])"
        )


@cache
def results(name: str) -> Any:
    return json.loads((RESULTS / name).read_text("utf-8"))


def value(name: str, *path: str) -> Any:
    """The value in a results file at the keys `path`."""
    found = results(name)
    for key in path:
        found = found[key]
    return found


def point(name: str, speaker: str | None = None) -> dict[str, Any]:
    """A codec's point in the results of benchmarks/quality/quality.py."""
    (found,) = (p for p in value(QUALITY, "points") if (p["name"], p["speaker"]) == (name, speaker))
    return dict(found)


def row(english: str, chinese: str, name: str, *before: Any) -> Claim:
    """A row of the table: the values of `before`, the rate, PESQ and ESTOI."""
    p = point(name)
    scores = p["scores"]["pesq"], p["scores"]["estoi"]
    cells = "{:.2f} | {:.3f} |"
    if p["recordings_bits_per_second"] is not None:
        rates = p["bits_per_second"], p["recordings_bits_per_second"]
        return Claim(
            f"| {english} | {{:,.0f}} to {{:,.0f}} | {cells}",
            f"| {chinese} | {{:,.0f}} 到 {{:,.0f}} | {cells}",
            (*before, *rates, *scores),
        )
    if p["bits_per_second"] is None:
        return Claim(f"| {english} | | {cells}", f"| {chinese} | | {cells}", (*before, *scores))
    return Claim(
        f"| {english} | {{:,.0f}} | {cells}",
        f"| {chinese} | {{:,.0f}} | {cells}",
        (*before, p["bits_per_second"], *scores),
    )


def unseen_speakers() -> Claim:
    points = [p for p in value(QUALITY, "points") if p["speaker"]]
    (minutes,) = {p["minutes"] for p in points}

    def mean(numbers: Sequence[float]) -> float:
        return sum(numbers) / len(numbers)

    return Claim(
        "unseen speakers (mean of {}, {:.0f} minutes) | {:,.0f} | {:.2f} | {:.3f} |",
        "未见过的说话人({} 人平均,{:.0f} 分钟) | {:,.0f} | {:.2f} | {:.3f} |",
        (
            len(points),
            minutes,
            mean([p["bits_per_second"] for p in points]),
            mean([p["scores"]["pesq"] for p in points]),
            mean([p["scores"]["estoi"] for p in points]),
        ),
    )


def percent(*path: str) -> float:
    return 100 * float(value(SMALL, *path))


def target(preset: str) -> float:
    rate = PRESETS[preset].autoencoder.target_rate
    assert rate is not None
    return rate / 1000


def notes_at_a_rate() -> tuple[float, ...]:
    """Sample rate in kHz, bits per second of `rate-4k` and of Opus, and the ViSQOL of both, of the same notes."""
    ours, peers = value(NOTES_RATE), value(NOTES)
    assert (ours["recordings"], ours["seconds"]) == (peers["recordings"], peers["seconds"])
    (model,) = (row for row in ours["rows"] if row["name"] == "audiovq")
    (opus,) = (row for row in peers["rows"] if row["name"] == "Opus 12k")
    return (
        ours["spectrogram"]["sample_rate"] / 1000,
        *(row["bits_per_second"] for row in (model, opus)),
        *(row["visqol"] for row in (model, opus)),
    )


@cache
def claims() -> list[Claim]:
    """All sentences with a number, in the order of the READMEs.

    The function is long because it is a table.
    """
    speakers = len({p["speaker"] for p in value(QUALITY, "points") if p["speaker"]})
    words = len({path.name[0] for path in (ROOT / "data" / "digits").glob("*.wav")})
    notebook = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text("utf-8"))
    cells = sum(cell["cell_type"] == "code" for cell in notebook["cells"])
    shipped = value(SHIPPED, "digits")
    minutes = [point(f"audiovq rate-{k}k")["minutes"] for k in (1, 2, 4)]
    # The guide names one commit for each of three groups of rows, and one date for the first two.
    ours, on_words, others = point("audiovq rate-2k"), point(UNSEEN_WORDS), point("Opus 8k")
    for measured in value(QUALITY, "points"):
        is_ours = ours if measured["family"].startswith("audiovq") else others
        group = on_words if measured["name"] in (UNSEEN_WORDS, SAME_WORDS) else is_ours
        assert [measured[key] == group[key] for key in ("commit", "date")] == [True, True]
    assert ours["date"] == on_words["date"]
    for name in (SAMPLING, SAMPLING_DIGITS):
        assert value(name, "chosen", "time", "guidance") == GUIDANCE
    generated, masked = ("evaluation", "generation"), ("generation_masked",)
    nearest = [
        f"{value(SMALL, *generated, 'nearest_training_clip_db', which, 'median'):.1f}"
        for which in ("generated", "real")
    ]
    assert nearest[0] == nearest[1], "the README says that they are the same"
    return [
        Claim("Python {:.2f} or newer", "Python {:.2f} 或更新的版本", (python(),)),
        Claim("{:.1f} GB of disk", "{:.1f} GB 磁盘空间", (value(INSTALL, "bytes") / 1e9,)),
        Claim("sounds in {:en} commands", "{:zh}条命令", (Spelt(own_commands()),)),
        Claim(
            "about {:.0f} minutes on {:en} cores",
            "{1:zh}个核上大约 {0:.0f} 分钟",
            (PRESETS["small"].max_minutes, Spelt(2)),
        ),
        Claim("fewer than {} recordings", "少于 {} 段", (FEW_CLIPS,)),
        Claim(
            "about {:en} minutes on one CPU core",
            "在一个 CPU 核上大约需要{:zh}分钟",
            (Spelt(round(value(SHIPPED, "demo", "seconds") / 60)),),
        ),
        Claim(
            "{:en} generated recordings",
            "{:zh}段生成的录音",
            (Spelt(value(SHIPPED, "demo", "recordings")),),
        ),
        Claim(
            "| {:en} recordings | sounds between them |",
            "| {:zh}段录音 | 两者之间的声音 |",
            (Spelt(2),),
        ),
        Claim("in {:en} steps instead", "只要{:zh}步", (Spelt(STEPS),)),
        Claim(
            "comes with the package ({:.1f} MB)", "随包附带({:.1f} MB)", (shipped["bytes"] / 1e6,)
        ),
        Claim(
            "trained for {:.0f} minutes on",
            "训练了 {:.0f} 分钟",
            (shipped["training_seconds"] / 60,),
        ),
        Claim(
            "A classifier that is {:.1f} % correct on real test clips recognises the digit of {:.1f} % of"
            " {} generated ones",
            "在真实测试样本上 {:.1f} % 正确的分类器,认对了 {2} 段生成的声音中 {1:.1f} % 的数字".replace(
                "{:.1f}", "{0:.1f}"
            ),
            (
                100 * shipped["evaluation"]["generation"]["accuracy"]["digit"]["real"],
                100 * shipped["evaluation"]["generation"]["accuracy"]["digit"]["generated"],
                shipped["evaluation"]["generation"]["sounds"],
            ),
        ),
        Claim(
            "![Spectrograms of {:en} generated digits]",
            "![{:zh}个生成的数字的频谱图]",
            (Spelt(words),),
        ),
        Claim("in {:en} code cells", "用{:zh}个代码单元格", (Spelt(cells),)),
        Claim("within {:,} bit/s", "不超过 {:,} bit/s", (rate_of_example(),)),
        Claim(
            "archives of {:.0f}, {:.0f} and {:.0f} kbit/s",
            "训练 {:.0f}、{:.0f}、{:.0f} kbit/s 的档案",
            tuple(map(target, ("rate-1k", "rate-2k", "rate-4k"))),
        ),
        Claim(
            "At {:.1f} kHz, `rate-4k` codes instrument notes at {:,.0f} bit/s as closely as Opus does at {:,.0f} (ViSQOL {:.2f}"
            " and {:.2f}, validation files)",
            "在 {:.1f} kHz,`rate-4k` 以 {:,.0f} bit/s 编码乐器音符,与 {:,.0f} bit/s 的 Opus 一样接近原声(验证文件的 ViSQOL 为 {:.2f}"
            " 和 {:.2f})",
            notes_at_a_rate(),
        ),
        Claim(
            "the {} official test recordings of the Free Spoken Digit Dataset ({:.0f} kHz, {:en} speakers)",
            "官方的 {} 段测试录音({:.0f} kHz,{:zh}位说话人)",
            (value(QUALITY, "files"), sample_rate() / 1000, Spelt(speakers)),
        ),
        Claim(
            "for {:.0f} to {:.0f} minutes on a CPU",
            "在 CPU 上训练 {:.0f} 到 {:.0f} 分钟",
            (min(minutes), max(minutes)),
        ),
        Claim(
            "within {:.0f}, {:.0f} and {:.0f} kbit/s",
            "{:.0f}、{:.0f}、{:.0f} kbit/s 以内",
            tuple(map(target, ("rate-1k", "rate-2k", "rate-4k"))),
        ),
        *(row(name, name, name) for name in ("Codec 2 1200", "Codec 2 3200", "AMR-NB 4.75k")),
        *(
            row(
                f"**audiovq, `rate-{k}k`** ({{:.0f}} minutes)",
                f"**audiovq,`rate-{k}k`**({{:.0f}} 分钟)",
                f"audiovq rate-{k}k",
                minute,
            )
            for k, minute in zip((1, 2, 4), minutes, strict=True)
        ),
        *(
            row(f"Opus {k}k, {how} rate", f"Opus {k}k,{chinese}码率", f"Opus {tag}{k}k")
            for k in (6, 8)
            for how, chinese, tag in (("constant", "恒定", ""), ("variable", "可变", "VBR "))
        ),
        unseen_speakers(),
        *(
            row(
                f"audiovq, `rate-2k`, {english} ({{:.0f}} minutes)",
                f"audiovq,`rate-2k`,{chinese}({{:.0f}} 分钟)",
                name,
                point(name)["minutes"],
            )
            for english, chinese, name in (
                ("unseen words", "未见过的词", UNSEEN_WORDS),
                ("these words alone learnt", "只学过这些词", SAME_WORDS),
            )
        ),
        row("the spectrograms alone, inverted", "只用频谱图,反变换", CEILING),
        Claim(
            "the same {:en} people saying the same {:en} words",
            "同样{:zh}个人说同样{:zh}个词",
            (Spelt(speakers), Spelt(words)),
        ),
        Claim("{:en} models, each", "{:zh}个模型,各自", (Spelt(speakers),)),
        Claim(
            "the digits {} to {}, tested on {} to {}",
            "只学过数字 {} 到 {} 的模型,在 {} 到 {} 上测试",
            (*ends("LEARNT_WORDS"), *ends("OTHER_WORDS")),
        ),
        Claim("learnt only {} to {}", "只学过 {} 到 {} 的模型", ends("OTHER_WORDS")),
        Claim(
            "the {:.1f} s of silence",
            "有 {:.1f} s 静音",
            (PAUSE_SECONDS,),
        ),
        Claim("The lower of its two rates", "它的两个码率中"),
        Claim(
            "Our rows were measured at commit `{}`, the two on words at `{}`, on {};",
            "我们的各行测于提交 `{}`,其中关于词的两行测于 `{}`({});",
            (ours["commit"], on_words["commit"], ours["date"]),
        ),
        Claim(
            "all other rows at commit `{}` on {}",
            "其余各行测于提交 `{}`({})",
            (others["commit"], others["date"]),
        ),
        Claim(
            "{:.0f} minutes on {:en} cores, measured on {}",
            "{1:zh}个核 {0:.0f} 分钟,测于 {2}",
            (PRESETS["small"].max_minutes, Spelt(2), value(SMALL, "date")),
        ),
        Claim(
            "digit of {:.1f} % of real test recordings correctly names it for {:.1f} % of {} generated ones,"
            " and the speaker for {:.1f} % ({:.1f} % of real ones)",
            "能认对 {0:.1f} % 真实测试录音的数字的分类器,在 {2} 段生成的录音中认对了 {1:.1f} % 的数字和"
            " {3:.1f} % 的说话人(真实录音为 {4:.1f} %)",
            (
                percent(*generated, "accuracy", "digit", "real"),
                percent(*generated, "accuracy", "digit", "generated"),
                value(SMALL, *generated, "sounds"),
                percent(*generated, "accuracy", "speaker", "generated"),
                percent(*generated, "accuracy", "speaker", "real"),
            ),
        ),
        Claim(
            "the test recordings is {:.1f}; that of the training recordings is {:.1f}.",
            "Fréchet 距离是 {:.1f},训练录音是 {:.1f}。",
            tuple(
                value(SMALL, *generated, "frechet_distance", which)
                for which in ("generated", "training_clips")
            ),
        ),
        Claim("{} dB away (median)", "中位数是 {} dB", (nearest[0],)),
        Claim(
            "in {:en} steps (`--order masked --steps 2`): {:.1f} %, {:.1f} %, a distance of {:.1f}",
            "{:zh}步生成的录音(`--order masked --steps 2`):{:.1f} %、{:.1f} %,距离 {:.1f}",
            (
                Spelt(STEPS_OF_PART),
                percent(*masked, "accuracy", "digit", "generated"),
                percent(*masked, "accuracy", "speaker", "generated"),
                value(SMALL, *masked, "frechet_distance", "generated"),
            ),
        ),
        Claim(
            "the best temperature was {:g} on this dataset and {:g}, by less than chance, on `data/digits`, so the"
            " default is {:g}",
            "最好的温度在这个数据集上是 {:g},在 `data/digits` 上是 {:g}(差别小于偶然误差),所以默认值是 {:g}",
            (
                value(SAMPLING, "chosen", "time", "temperature"),
                value(SAMPLING_DIGITS, "chosen", "time", "temperature"),
                SamplingConfig().temperature,
            ),
        ),
        Claim(
            "Above 24 kHz guidance is {:g} (chosen on drums)",
            "24 kHz 以上引导强度是 {:g}(在鼓声上选定)",
            (GUIDANCE_ABOVE_24_KHZ,),
        ),
    ]


UNSEEN_WORDS = "audiovq rate-2k, words 5 to 9 unseen"
SAME_WORDS = "audiovq rate-2k, words 5 to 9 alone learnt"
CEILING = "true spectrograms inverted, 256/64, 64 bands"


def page_of(language: str) -> str:
    """README and guide."""
    return "\n".join((ROOT / name).read_text("utf-8") for name in PAGES[language])


def python() -> float:
    """The oldest Python that the package supports."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return float(project["requires-python"].removeprefix(">="))


def own_commands() -> int:
    """Commands of the README's second block: a model of one's sounds, and sounds of it."""
    blocks = re.findall(r"```\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    return len(blocks[1].splitlines())


def rate_of_example() -> int:
    """The rate that the README asks for."""
    (rate,) = set(re.findall(r"`--rate (\d+)`", page_of("en")))
    return int(rate)


def sample_rate() -> int:
    """The sample rate of benchmarks/quality/scores.py, in Hz."""
    text = (ROOT / "benchmarks" / "quality" / "scores.py").read_text("utf-8")
    (rate,) = re.findall(r"^RATE = (\d+)$", text, re.MULTILINE)
    return int(rate)


def ends(name: str) -> tuple[str, str]:
    """The first and the last digit of those that benchmarks/quality/quality.py learns or scores."""
    text = (ROOT / "benchmarks" / "quality" / "quality.py").read_text("utf-8")
    (line,) = re.findall(r'^LEARNT_WORDS, OTHER_WORDS = "(\d+)", "(\d+)"$', text, re.MULTILINE)
    digits = line[("LEARNT_WORDS", "OTHER_WORDS").index(name)]
    return digits[0], digits[-1]


def problems(page: str, language: str) -> list[str]:
    """Fragments that a README lacks, and numbers in it that no fragment covers."""
    page = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    found = []
    for claim in claims():
        page, count = claim.said(language).subn("§", page)
        if not count:
            fragment = claim.english if language == "en" else claim.chinese
            found.append(f"is not said: {fragment.format(*claim.values)}")
    page = re.sub(r"`[^`]*`", "", page)
    page = re.sub(r"\]\([^)]*\)", "]", page)
    for name in NAMES:
        page = page.replace(name, "")
    for match in NUMBER[language].finditer(page):
        around = page[max(0, match.start() - 40) : match.end() + 40].replace("\n", " ")
        found.append(f"has no source: {match[0]}, in: {around}")
    return found


NAMES = ("CC0", "MP3", "W64", "RF64", "SD2", "M4A")
"""Names that contain a digit."""


@pytest.mark.parametrize("language", PAGES)
def test_every_number_has_a_source(language: str) -> None:
    page = page_of(language)
    assert problems(page, language) == []


@pytest.mark.parametrize("language", PAGES)
def test_a_changed_or_added_number_is_found(language: str) -> None:
    page = page_of(language)
    prose = re.sub(
        r"```.*?```|`[^`]*`|\]\([^)]*\)|CC0|MP3|W64|RF64|SD2|M4A",
        lambda m: "§" * len(m[0]),
        page,
        flags=re.DOTALL,
    )
    numbers = list(NUMBER[language].finditer(prose))
    assert len(numbers) > 80
    for match in numbers[::4]:  # all of them would take seconds
        digits = match[0].rstrip(".,")
        other = digits[:-1] + str((int(digits[-1]) + 1) % 10) if digits[-1].isdigit() else "7"
        changed = page[: match.start()] + other + page[match.start() + len(digits) :]
        assert problems(changed, language), f"{match[0]} could be {other}"
    assert problems(page + "\n\nIt is 3 times as fast.\n", language)


def test_the_tutorial_names_the_training_minutes_of_the_bundled_model() -> None:
    minutes = Spelt(round(value(SHIPPED, "digits", "training_seconds") / 60))
    notebook = (ROOT / "docs" / "tutorial.ipynb").read_text("utf-8")
    assert f"The pretrained model below had {minutes:en}." in notebook
    assert f"trained for {minutes:en} minutes" in notebook


def make_performance() -> Any:
    """The module `docs/make_performance.py`."""
    spec = importlib.util.spec_from_file_location(
        "make_performance", ROOT / "docs" / "make_performance.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_the_page_on_performance_are_the_newest_results() -> None:
    module = make_performance()
    text = (ROOT / "docs" / "performance.md").read_text("utf-8")
    assert text == module.page(text), "run python docs/make_performance.py"
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) > 40
    changed = text.replace(rows[-1], rows[-1] + " |")
    assert module.page(changed) == text


def test_every_row_of_the_newest_speed_results_is_on_the_page() -> None:
    module = make_performance()
    text = (ROOT / "docs" / "performance.md").read_text("utf-8")
    sections = list(module.SECTION.finditer(text))
    for glob in {section["glob"] for section in sections}:
        patterns = [section["names"] or "" for section in sections if section["glob"] == glob]
        for line in module.newest(glob).read_text("utf-8").splitlines():
            name = json.loads(line)["name"]
            assert sum(bool(re.search(pattern, name)) for pattern in patterns) == 1, name


def test_every_results_file_names_machine_date_and_commit() -> None:
    for path in sorted(RESULTS.iterdir()):
        lines = path.read_text("utf-8").splitlines() if path.suffix == ".jsonl" else []
        rows = [json.loads(line) for line in lines] or [results(path.name)]
        if "machine" not in rows[0]:  # of several measurements, each with its own
            rows = rows[0].get("points") or list(rows[0].values())
        for entry in rows:
            assert entry["machine"], path.name
            assert re.fullmatch(r"\d{4}-\d\d-\d\d", entry["date"]), path.name
            assert re.fullmatch(r"[0-9a-f]{7}\+?", entry["commit"]), path.name

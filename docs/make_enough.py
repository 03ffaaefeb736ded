"""Make the figure of how many clips are enough, its table in experiments.md, and what `inspect` reads.

    python docs/make_enough.py [RESULTS.json]

RESULTS is what `benchmarks/quality/enough.py` wrote; by default the newest in benchmarks/results.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
BEGIN, END = "<!-- enough: made by docs/make_enough.py -->", "<!-- end of enough -->"
COLOURS = {"drums": "#c2410c", "notes": "#0f766e", "foley": "#4d7c0f", "fsdd": "#4338ca"}
PANELS = {
    "error_db": "error, dB",
    "bits_per_code": "bits per code",
    "named": "new sounds with their label",
    "copies": "near copies",
}


def newest() -> Path:
    """The newest results."""
    return max((ROOT / "benchmarks" / "results").glob("*-enough.json"))


def picture(figures: dict[str, Any]) -> None:
    """Write docs/pictures/enough.svg: a panel for each figure, a line for each set."""
    pyplot.rcParams["svg.hashsalt"] = "enough"
    figure, axes = pyplot.subplots(1, 4, figsize=(13, 3.2), layout="constrained")
    for axis, (name, title) in zip(axes, PANELS.items(), strict=True):
        for one, colour in COLOURS.items():
            rows = sorted((r for r in figures["rows"] if r["set"] == one), key=lambda r: r["clips"])
            clips = [row["clips"] for row in rows]
            axis.plot(clips, [row[name] for row in rows], "o-", color=colour, label=one)
            if f"{name}_real" in rows[0]:
                real = [row[f"{name}_real"] for row in rows]
                axis.plot(clips, real, ":", color=colour, linewidth=1)
        axis.set(xscale="log", title=title, xlabel="training clips")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.savefig(DOCS / "pictures" / "enough.svg", metadata={"Date": None})


def table(figures: dict[str, Any]) -> str:
    """The figures as a table of Markdown."""
    lines = [
        "| set | clips | seconds | error, dB | bits per code | named (recordings) | near copies (test recordings) |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = sorted(figures["rows"], key=lambda r: (list(COLOURS).index(r["set"]), r["clips"]))
    lines += [
        f"| {row['set']} | {row['clips']:,} | {row['seconds']:,.0f} | {row['error_db']:.2f}"
        f" | {row['bits_per_code']:.2f} | {100 * row['named']:.0f} % ({100 * row['named_real']:.0f} %)"
        f" | {100 * row['copies']:.0f} % ({100 * row['copies_real']:.0f} %) |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Write all three."""
    figures = json.loads((Path(sys.argv[1]) if len(sys.argv) > 1 else newest()).read_text())
    picture(figures)
    kept = {"minutes": figures["minutes"], "rows": figures["rows"]}
    assets = ROOT / "audiovq" / "inspection" / "assets"
    assets.mkdir(exist_ok=True)
    (assets / "enough.json").write_text(json.dumps(kept, indent=1) + "\n")
    path = DOCS / "experiments.md"
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{table(figures)}\n{END}{after}")


if __name__ == "__main__":
    main()

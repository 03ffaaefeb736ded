"""Reading a file never runs code: no source uses pickle.

tests/whole/test_pipeline.py checks that no written file is a pickle.
"""

import ast
from pathlib import Path

import pytest

import audiovq

ROOT = Path(__file__).parents[2]
PACKAGE = Path(audiovq.__file__).parent
SOURCES = [
    *PACKAGE.rglob("*.py"),
    *(p for name in ("scripts", "benchmarks", "data") for p in (ROOT / name).rglob("*.py")),
]
MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
CALLS = {
    "torch.save",
    "torch.load",
    "torch.jit.load",
    "torch.hub.load",
    "np.save",
    "np.load",
    "eval",
    "exec",
}


def faults(source: str) -> list[str]:
    """Calls and imports in a source that may read or write pickles, or execute data."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
            found += [name for name in modules if name.partition(".")[0] in MODULES]
            found += [
                n
                for n in names
                if isinstance(node, ast.ImportFrom)
                and n in ("save", "load")
                and node.module == "torch"
            ]
        if isinstance(node, ast.Call):
            name, plain = ast.unparse(node.func), False
            for keyword in node.keywords:
                says_no = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                plain |= keyword.arg == "allow_pickle" and says_no
                if keyword.arg == "allow_pickle" and not says_no:
                    found.append(ast.unparse(node))
            if name.replace("numpy.", "np.") in CALLS and not plain:
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_source_uses_pickle(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import joblib.memory",
        "from marshal import loads",
        "from torch import load",
        "torch.load(path, weights_only=True)",
        "torch.save(x, path)",
        "np.load(path)",
        "numpy.load(path, allow_pickle=flag)",
        "np.lib.format.open_memmap(path, allow_pickle=True)",
    ],
)
def test_uses_of_pickle_are_found(source: str) -> None:
    assert faults(source)


def test_a_plain_array_is_not_a_pickle() -> None:
    assert faults("np.save(file, array, allow_pickle=False); checkpoint.load(path)") == []

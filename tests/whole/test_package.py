"""Installation by pip: the package can be imported from every folder and has the bundled models."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from audiovq.models.folder import SHIPPED, shipped_names

ROOT = Path(__file__).parents[2]


def built(how: str, clone: Path, out: Path) -> Path:
    """The wheel that `setuptools.build_meta` makes of a clone."""
    pytest.importorskip("setuptools", minversion="77")
    code = f"import sys, setuptools.build_meta as build; build.{how}(sys.argv[1])"
    out.mkdir()
    ended = subprocess.run([sys.executable, "-c", code, out], cwd=clone, capture_output=True)
    assert ended.returncode == 0, ended.stderr.decode()
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of what is installed, in a folder that has the package's name, as a clone has."""
    clone = tmp_path / "audiovq"
    clone.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "audiovq", clone / "audiovq", ignore=ignored)
    return clone


def test_an_editable_install_is_found_beside_the_clone(clone: Path, tmp_path: Path) -> None:
    """There a folder without __init__.py has the package's name; a package comes before it only where
    the folder around it is a path of its own, and no import hook."""
    site = tmp_path / "site"
    with zipfile.ZipFile(built("build_editable", clone, tmp_path / "out")) as wheel:
        wheel.extractall(site)
    code = (
        "import site, sys; sys.path.insert(0, ''); site.addsitedir(sys.argv[1])\n"
        "import audiovq; print(audiovq.__file__)"
    )
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, site], cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.stdout.strip() == str(clone / "audiovq" / "__init__.py"), ended.stderr


def test_an_install_has_every_module_and_the_bundled_models(clone: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(built("build_wheel", clone, tmp_path / "out")) as wheel:
        names = set(wheel.namelist())
    files = [path for path in (ROOT / "audiovq").rglob("*") if path.is_file()]
    wanted = {
        path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts
    }
    assert {name for name in names if ".dist-info/" not in name} == wanted
    assert {f"audiovq/pretrained/{name}/model.json" for name in shipped_names()} <= names


def test_models_that_ship_have_at_most_12_mb_each_and_30_mb_together() -> None:
    sizes = {
        name: sum(path.stat().st_size for path in (SHIPPED / name).iterdir())
        for name in shipped_names()
    }
    assert sizes.keys() == {"digits", "notes", "sounds"}
    assert max(sizes.values()) <= 12e6
    assert sum(sizes.values()) <= 30e6


def test_the_installed_command_runs(clone: Path, tmp_path: Path) -> None:
    """As pip's script does it: it imports what the wheel's entry point names, and calls it."""
    site = tmp_path / "site"
    with zipfile.ZipFile(built("build_wheel", clone, tmp_path / "out")) as wheel:
        wheel.extractall(site)
    code = (
        "import sys; from importlib.metadata import distributions\n"
        "(found,) = distributions(name='audiovq', path=[sys.argv.pop(1)])\n"
        "(command,) = found.entry_points.select(group='console_scripts', name='audiovq')\n"
        "sys.path.insert(0, str(found.locate_file('.'))); sys.argv[0] = command.name\n"
        "sys.exit(command.load()())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, site, "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "preprocess" in ended.stdout

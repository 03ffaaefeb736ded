"""Tests of `audiovq.header`: checksums, versions, and names that escape their folder."""

from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiovq.config.errors import AudiovqError
from audiovq.runtime.checksums import (
    escapes_folder,
    header_bytes,
    read_header,
    verified_path,
    write_header,
)
from audiovq.runtime.files import sha256

HEADER: dict[str, Any] = {"format": "audiovq-thing", "version": 3}
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("header") / "thing.json"


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), values, max_size=4))
def test_read_header_inverts_header_bytes(path: Path, content: dict[str, Any]) -> None:
    header = {**content, **HEADER}
    header.pop("sha256", None)
    path.write_bytes(header_bytes(header))
    assert read_header(path, "thing", 3, "again") == header


def test_every_flipped_bit_and_every_other_length_raises(tmp_path: Path) -> None:
    path = tmp_path / "thing.json"
    write_header(path, HEADER | {"a": 1.5e-7, "b": [True, "ä"]})
    data = path.read_bytes()
    flipped = [
        data[:p] + bytes([data[p] ^ 1 << bit]) + data[p + 1 :]
        for p in range(len(data))
        for bit in range(8)
    ]
    for bad in (
        *flipped,
        *(data[:length] for length in range(len(data))),
        data + b" ",
        data + data,
    ):
        path.write_bytes(bad)
        with pytest.raises(AudiovqError) as caught:
            read_header(path, "thing", 3, "again")
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)
    path.write_bytes(data)
    read_header(path, "thing", 3, "again")


@pytest.mark.parametrize("version", [4, 0, True, 3.0, None, "3", [3], 10**50])
def test_another_version_raises_with_its_number(tmp_path: Path, version: Any) -> None:
    write_header(tmp_path / "thing.json", HEADER | {"version": version})
    with pytest.raises(AudiovqError, match="this program reads 3") as caught:
        read_header(tmp_path / "thing.json", "thing", 3, "again")
    assert repr(version)[:40] in str(caught.value)


def test_a_listed_file_needs_a_plain_name_and_a_matching_checksum(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for parent in (folder, tmp_path):
        (parent / "a.bin").write_bytes(b"abc")
    digest = sha256(folder / "a.bin")
    assert verified_path(folder, "a.bin", digest, "again") == folder / "a.bin"
    (folder / "link").symlink_to(tmp_path / "a.bin")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "b").mkdir()
    names = [
        "../a.bin",
        str(tmp_path / "a.bin"),
        "b/../a.bin",
        "link",
        "loop",
        "b",
        "",
        ".",
        "..",
        "c",
    ]
    for name in (*names, "a\0.bin", "a\n.bin", "\ud800", "x" * 300, None, 3, ["a.bin"]):
        with pytest.raises(AudiovqError) as caught:
            verified_path(folder, name, digest, "again")
        assert "\n" not in str(caught.value)
    for wrong in (digest[:-1], digest.upper(), None, 3):
        with pytest.raises(AudiovqError, match="checksum"):
            verified_path(folder, "a.bin", wrong, "again")


@pytest.mark.parametrize("flavour", [PurePosixPath, PureWindowsPath])
@pytest.mark.parametrize("name", ["/etc/passwd", "../a", "a/../../b", "..", "a\0b", "//host/a"])
def test_names_that_escape_on_any_system_are_detected(name: str, flavour: Any) -> None:
    assert escapes_folder(name, flavour)


@pytest.mark.parametrize(
    "name", ["C:\\a", "C:a", "\\a", "..\\a", "a\\..\\..\\b", "\\\\host\\share\\a"]
)
def test_names_that_escape_on_windows_only_are_detected_there(name: str) -> None:
    assert escapes_folder(name, PureWindowsPath)
    assert not escapes_folder(name, PurePosixPath)


@pytest.mark.parametrize("flavour", [PurePosixPath, PureWindowsPath])
@pytest.mark.parametrize("name", ["a", "a/b.wav", "..a/b..c/...wav", "日本/a b.wav", "a\nb"])
def test_names_within_the_folder_are_accepted(name: str, flavour: Any) -> None:
    assert not escapes_folder(name, flavour)

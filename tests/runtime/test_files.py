"""Files are complete or absent, folders are locked, outputs are resumable, inputs are never overwritten."""

import contextlib
import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from file_modes import modes_hold
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audiovq.audio import writing
from audiovq.config.errors import AudiovqError
from audiovq.runtime.files import (
    MAX_JSON_BYTES,
    append_line,
    atomic,
    cannot_write,
    clear,
    is_blank,
    json_text,
    lock_folder,
    read_bytes,
    read_json,
    read_object,
    remove_partials,
    require_apart,
    require_new,
    sha256,
    write_json,
    write_text,
)
from audiovq.runtime.outputs import writing_into
from audiovq.runtime.tensors import save_tensors, scratch
from audiovq.spectral.picture import write_images

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
texts = st.text(st.characters(exclude_categories=["Cs"]))
trees = st.recursive(
    scalars | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def test_atomic_leaves_only_the_new_file_after_success(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.bin"
    with atomic(path) as temporary:
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), OSError(28, "full")])
def test_atomic_leaves_only_the_old_file_after_an_error(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def write() -> None:
        with atomic(path) as temporary:
            temporary.write_bytes(b"part")
            raise error

    expected = AudiovqError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        write()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_readers_see_the_old_file_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with atomic(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_an_open_reader_still_reads_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with open(path, "rb") as reader:
        write_text(path, "new")
        assert reader.read() == b"old"


def test_temporary_files_are_hidden_and_next_to_their_target(tmp_path: Path) -> None:
    with atomic(tmp_path / "a.wav") as temporary:
        temporary.touch()
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".")


def test_a_full_disk_and_a_file_in_place_of_a_folder_raise_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "a.json"
    with pytest.raises(AudiovqError) as caught:
        write_text(path, "text")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)

    with (
        pytest.raises(AudiovqError, match=r"a\.json: .*No space left"),
        atomic(tmp_path / "a.json"),
    ):
        raise OSError(28, "No space left on device")


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


FULL_DISK = r"cannot be written \(No space left on device\); make room on that disk, then run"


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.json", lambda path: write_json(path, {"new": 1})),
        ("a.safetensors", lambda path: save_tensors(path, {"a": torch.ones(3)}, {"of": "test"})),
        ("a.wav", lambda path: writing.write(path, np.ones(9, np.float32), 8000)),
        ("a.flac", lambda path: writing.write(path, np.ones(9, np.float32), 8000)),
        ("a.png", lambda path: write_images(path.parent, torch.ones(1, 1, 4, 4), ["a"])),
    ],
)
def test_a_full_disk_leaves_the_old_file_and_says_what_to_do(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    write: Callable[[Path], object],
    call: str,
) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, full_disk)
    with pytest.raises(AudiovqError, match=rf"{re.escape(str(path))}: {FULL_DISK}"):
        write(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_other_reasons_are_not_called_a_full_disk() -> None:
    refused = cannot_write("a.wav", PermissionError(errno.EACCES, "Permission denied"))
    assert str(refused) == "a.wav: cannot be written (Permission denied)"


def test_a_line_that_finds_no_room_is_not_appended_in_part(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_line(path, "first")
    code = f"""
import resource, signal
from pathlib import Path
from audiovq.runtime.files import append_line
resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))
append_line(Path({str(path)!r}), 90 * "x")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "metrics.jsonl: cannot be written (File too large)" in ended.stderr
    assert path.read_text() == "first\n"


def test_scratch_memory_without_room_is_an_error_and_not_a_killed_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert not scratch(4, 5, dtype=torch.int16).any()
    monkeypatch.setattr(os, "posix_fallocate", full_disk, raising=False)
    with pytest.raises(AudiovqError, match=rf"{re.escape(str(tmp_path))}: {FULL_DISK}"):
        scratch(4, 5, dtype=torch.int16)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees)
def test_reading_json_inverts_writing(tmp_path: Path, data: Any) -> None:
    path = tmp_path / "a.json"
    write_json(path, data)
    assert read_json(path, "a thing") == data


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(texts, scalars))
def test_equal_data_give_equal_json(tmp_path: Path, data: dict[str, Any]) -> None:
    write_json(tmp_path / "a.json", data)
    write_json(tmp_path / "b.json", dict(data))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_missing_header_names_the_folder_and_what_it_is_not(tmp_path: Path) -> None:
    with pytest.raises(AudiovqError, match="not a dataset") as caught:
        read_json(tmp_path / "dataset.json", "a dataset")
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("damage", [b"", b'{"a": 1', b"\xff\xfe\x00", b"{'a': 1}"])
def test_damaged_json_raises_with_its_path_in_one_line(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "dataset.json"
    path.write_bytes(damage)
    with pytest.raises(AudiovqError) as caught:
        read_json(path, "a dataset")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=1000))
def test_sha256_is_that_of_the_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "checksum.bin"
    path.write_bytes(data)
    assert sha256(path) == hashlib.sha256(data).hexdigest()


def test_existing_files_need_overwrite(tmp_path: Path) -> None:
    file, empty, full = tmp_path / "file", tmp_path / "empty", tmp_path / "full"
    file.touch()
    empty.mkdir()
    (full / "inner").mkdir(parents=True)
    (full / "inner" / "a").touch()
    require_new(tmp_path / "new", overwrite=False)
    require_new(empty, overwrite=False)
    for path in (file, full):
        require_new(path, overwrite=True)
        with pytest.raises(AudiovqError, match=f"{path.name}: exists already.*--overwrite"):
            require_new(path, overwrite=False)


# --- Locks ------------------------------------------------------------------------------------

LOCKER = """
import sys, time
from pathlib import Path
from audiovq.runtime.files import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


def test_a_locked_folder_is_rejected_until_it_is_released(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    with lock_folder(folder):
        with (
            pytest.raises(AudiovqError, match="folder: another run is writing here"),
            lock_folder(folder),
        ):
            pass
        assert list(folder.iterdir()) == [], "the lock leaves no file"
        (folder / "a").touch()
    with lock_folder(folder):
        pass
    assert [path.name for path in folder.iterdir()] == ["a"]


def test_a_killed_process_releases_its_lock(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LOCKER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(AudiovqError, match="another run"), lock_folder(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
    with lock_folder(tmp_path):
        pass


def test_locking_leaves_no_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="any"), lock_folder(tmp_path / "folder"):
        raise ValueError("any")
    assert not (tmp_path / "folder").exists()


def test_only_folders_can_be_locked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(AudiovqError) as caught, lock_folder(path):
            pass
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_partial_files_of_killed_runs_are_ignored_and_can_be_removed(tmp_path: Path) -> None:
    for name in (".a.json.123.tmp", "inner/.b\nc.wav.4.tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert is_blank(tmp_path)
    for name in ("mine.tmp", ".mine.tmp", "inner/a.5.tmp"):
        (tmp_path / name).touch()
        assert not is_blank(tmp_path)
    remove_partials(tmp_path)
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {"mine.tmp", ".mine.tmp", "a.5.tmp"}


def test_clear_keeps_one_folder_and_the_targets_of_links(tmp_path: Path) -> None:
    for name in ("other/precious", "folder/a", "folder/inner/b", "folder/kept/c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "other")
    clear(tmp_path / "folder", but=tmp_path / "folder" / "kept")
    remaining = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert remaining == {"other/precious", "folder/kept/c"}


def test_an_unfinished_folder_can_be_resumed_and_a_finished_one_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with pytest.raises(FileNotFoundError), writing_into(folder, overwrite=False):
        [(folder / name).touch() for name in ("1.wav", "no/folder")]  # the second fails
    with writing_into(folder, overwrite=False):
        (folder / "2.wav").touch()
    assert sorted(path.name for path in folder.iterdir()) == ["1.wav", "2.wav"]
    with pytest.raises(AudiovqError, match="exists already"), writing_into(folder, overwrite=False):
        pass
    assert sorted(path.name for path in folder.iterdir()) == ["1.wav", "2.wav"]
    with (
        writing_into(folder, overwrite=True),
        pytest.raises(AudiovqError),
        writing_into(folder, True),
    ):
        pass
    with pytest.raises(FileNotFoundError), writing_into(tmp_path / "empty", overwrite=False):
        (tmp_path / "empty" / "no" / "folder").touch()  # before anything was written
    assert not (tmp_path / "empty").exists()


# --- Output folders ------------------------------------------------------------------------------

COMMAND = {"verb": "generate", "seed": 1}


def fill(folder: Path, names: list[str], command: Any = COMMAND, **options: Any) -> list[str]:
    """Write a file for each name; the name `STOP` interrupts the run. Returns the names written."""
    written = []
    with writing_into(folder, options.pop("overwrite", False), command, **options) as filled:
        for name in names:
            if filled.row(name) is None:
                filled.expect(name)
                if name == "STOP":
                    raise KeyboardInterrupt
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(name)
                filled.done(name, {"length": len(name)})
                written.append(name)
    return written


def visible_files(folder: Path) -> list[str]:
    """Files below `folder` that are not hidden."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(str(p.relative_to(folder)) for p in paths if not p.name.startswith("."))


def test_an_interrupted_command_resumes_and_writes_nothing_twice(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        fill(out, ["a", "sub/b", "STOP"])
    with pytest.raises(AudiovqError, match=r"unfinished output of another command.*--overwrite"):
        fill(out, ["x"], {"verb": "generate", "seed": 2})
    assert visible_files(out) == ["a", "sub/b"]
    (out / "a").unlink()  # missing files are written again
    with pytest.raises(KeyboardInterrupt):
        fill(out, ["a", "sub/b", "c", "STOP"])
    with writing_into(out, False, COMMAND) as filled:
        assert filled.row("sub/b") == {"length": 5}
        assert filled.row("d") is None
    assert visible_files(out) == ["a", "c", "sub/b"]
    with pytest.raises(AudiovqError, match="exists already"):
        fill(out, ["a"])


@pytest.mark.parametrize("stopped", [False, True])
def test_overwrite_deletes_only_the_files_of_the_earlier_run(stopped: bool, tmp_path: Path) -> None:
    out, old = tmp_path / "out", ["a", "b", "sub/inner/c"]
    with contextlib.suppress(KeyboardInterrupt):
        fill(out, [*old, *["STOP"] * stopped])
    (out / "mine.txt").write_text("keep me")
    (out / "sub" / "mine.txt").write_text("keep me")
    other = {"verb": "generate", "seed": 2}
    with pytest.raises(ZeroDivisionError), writing_into(out, True, other):
        raise ZeroDivisionError  # before anything is written, nothing is deleted
    assert visible_files(out) == ["a", "b", "mine.txt", "sub/inner/c", "sub/mine.txt"]
    with pytest.raises(KeyboardInterrupt):
        fill(out, ["b", "STOP"], other, overwrite=True)
    assert visible_files(out) == ["b", "mine.txt", "sub/mine.txt"]
    assert fill(out, ["b", "d"], other) == ["d"], "the same command resumes without --overwrite"
    assert visible_files(out) == ["b", "d", "mine.txt", "sub/mine.txt"]
    assert not (out / "sub" / "inner").exists()


def test_a_manipulated_list_deletes_nothing_outside_its_folder(tmp_path: Path) -> None:
    out, precious = tmp_path / "out", tmp_path / "precious"
    out.mkdir()
    precious.write_text("keep me")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").touch()
    (out / "link").symlink_to(tmp_path / "folder")
    names = [
        "../precious",
        str(precious),
        "link/a",
        "..",
        ".",
        "",
        "\0",
        "link",
        "a/../../precious",
    ]
    listed = json.dumps({"old": names, "files": names})
    for mark, text in ((".written", json.dumps(names)), (".unfinished", listed)):
        (out / mark).write_text(text)
        fill(out, ["new"], overwrite=True)
        assert precious.read_text() == "keep me"
        assert (tmp_path / "folder" / "a").exists()


@pytest.mark.parametrize("damage", ["", "{", "[]\n", '{"command": 1}\n', '{"done": 3}\n', "\udcff"])
def test_a_damaged_state_counts_as_another_command(tmp_path: Path, damage: str) -> None:
    (tmp_path / "a").touch()
    (tmp_path / ".unfinished").write_bytes(damage.encode("utf-8", "surrogateescape"))
    with pytest.raises(AudiovqError, match="another command"):
        fill(tmp_path, ["b"])
    assert fill(tmp_path, ["b"], overwrite=True) == ["b"]
    assert visible_files(tmp_path) == ["a", "b"]


def test_a_truncated_state_loses_at_most_one_file(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path, ["a", "b", "STOP"])
    mark = tmp_path / ".unfinished"
    complete = mark.read_bytes()
    for end in range(len(complete.splitlines(keepends=True)[0]), len(complete)):
        mark.write_bytes(complete[:end])
        with pytest.raises(KeyboardInterrupt):
            fill(tmp_path, ["a", "b", "STOP"])
        with contextlib.suppress(KeyboardInterrupt):
            assert fill(tmp_path, ["a", "b", "STOP"]) == []


def test_sources_are_never_overwritten(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "b"])
    for source in (tmp_path / "a", tmp_path / ".." / tmp_path.name / "b"):
        with pytest.raises(AudiovqError, match="would be overwritten"):
            fill(tmp_path, ["c"], overwrite=True, sources=[source])
    (tmp_path / "source").write_text("mine")
    with pytest.raises(AudiovqError, match="source: would be overwritten"):
        fill(tmp_path, ["c", "source"], overwrite=True, sources=[tmp_path / "source"])
    assert (tmp_path / "source").read_text() == "mine"


# --- Names, locks, special files ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["n" * 255, "語" * 85, "a b.wav"])
def test_names_of_maximum_length_can_be_written(tmp_path: Path, name: str) -> None:
    with atomic(tmp_path / name) as temporary:
        temporary.write_bytes(b"new")
        assert is_blank(tmp_path), "partial files are ignored"
        (partial,) = tmp_path.iterdir()
        assert partial == temporary
    assert (tmp_path / name).read_bytes() == b"new"
    (tmp_path / temporary.name).touch()
    remove_partials(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


COMPETITOR = """
import os, sys
from pathlib import Path
from audiovq.config.errors import AudiovqError
from audiovq.runtime.files import lock_folder
folder, marker = Path(sys.argv[1]), Path(sys.argv[2])
locks = 0
for _ in range(300):
    try:
        with lock_folder(folder):
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))  # fails if another has the lock
            locks += 1
            marker.unlink()
    except AudiovqError as error:
        assert "another run" in str(error), error
print(locks)
"""


def test_no_two_processes_lock_a_folder_that_is_removed_when_empty(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COMPETITOR, str(tmp_path / "out"), str(tmp_path / "marker")]
    runs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    locks = 0
    for run in runs:
        output, error = run.communicate()
        assert not run.returncode, error
        locks += int(output)
    assert locks > 0


def test_a_folder_removed_before_it_is_locked_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real_open = tmp_path / "out", os.open

    def slow_open(path: Path, *flags: int) -> int:
        monkeypatch.undo()
        lock = real_open(path, *flags)
        folder.rmdir()  # another run ends between opening and locking
        return lock

    monkeypatch.setattr(os, "open", slow_open)
    with lock_folder(folder):
        assert folder.is_dir()
        with pytest.raises(AudiovqError, match="another run"), lock_folder(folder):
            pass


def test_a_folder_without_permissions_raises_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0)
    try:
        with (
            modes_hold(),
            pytest.raises(AudiovqError, match="cannot be opened"),
            lock_folder(folder),
        ):
            pass
    finally:
        folder.chmod(0o755)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link to a device", "large"])
def test_json_is_read_only_from_regular_files_of_limited_size(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "large":
        with open(path, "wb") as file:
            file.truncate(MAX_JSON_BYTES + 1)
    else:
        path.symlink_to("/dev/zero")
    for read in (read_json, read_object):
        with pytest.raises(AudiovqError, match=r"model\.json: cannot be read as JSON") as caught:
            read(path, "a model")
        assert "\n" not in str(caught.value)
    with pytest.raises(AudiovqError, match=r"model\.json: cannot be read"):
        read_bytes(path, MAX_JSON_BYTES)


@pytest.mark.parametrize("text", ["[1]", "3", "null", '"text"'])
def test_read_object_rejects_other_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(AudiovqError, match=r"a\.json: not a plan"):
        read_object(tmp_path / "a.json", "a plan")


@given(st.recursive(scalars | st.floats(), lambda inner: st.lists(inner) | st.tuples(inner)))
def test_non_finite_numbers_become_valid_json(data: Any) -> None:
    def reject(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(json_text({"data": data}), parse_constant=reject)


def test_outputs_that_are_inputs_by_any_path_are_rejected(tmp_path: Path) -> None:
    model, other = tmp_path / "model", tmp_path / "other"
    for folder in (model, other):
        folder.mkdir()
        (folder / "a.bin").touch()
    (tmp_path / "link").symlink_to(model)
    (tmp_path / "a.link").symlink_to(model / "a.bin")
    for out in (
        model,
        tmp_path / "link",
        other / ".." / "model",
        model / "a.bin",
        tmp_path / "a.link",
    ):
        with pytest.raises(AudiovqError, match="choose another output"):
            require_apart(out, other, model)
    for out in (other, other / "a.bin", model / "new.bin", tmp_path, tmp_path / "new"):
        require_apart(out, model, tmp_path / "missing")
    with pytest.raises(AudiovqError, match="would overwrite"):
        require_apart(tmp_path, model / "a.bin", emptied=True)

"""The script for machines with a GPU: its exit status is that of the steps of this run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("bash") is None, reason="needs bash and GNU tools"
)


def test_a_step_that_failed_in_an_earlier_run_into_the_same_folder_does_not_fail_this_one(
    benchmarks: Path, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ "$1" = -c ] || exit "$STATUS"\n')
    python.chmod(0o755)
    for status in (1, 0):
        environment = os.environ | {"PYTHON": str(python), "STATUS": str(status)}
        command = [str(benchmarks / "gpu.sh"), "run", str(tmp_path / "out"), "tests"]
        done = subprocess.run(
            [*command, "--device", "cpu"], env=environment, capture_output=True, check=False
        )
        assert done.returncode == status
        lines = (tmp_path / "out" / "steps.jsonl").read_text().splitlines()
        assert [json.loads(line)["exit_code"] for line in lines] == [status]


def test_a_step_whose_sounds_are_not_there_has_failed(benchmarks: Path, tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    script = shutil.copy(benchmarks / "gpu.sh", tmp_path / "benchmarks")
    command = [script, "run", str(tmp_path / "out"), "fsdd", "--device", "cpu"]
    environment = os.environ | {"PYTHON": str(shutil.which("true"))}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 1
    (line,) = (tmp_path / "out" / "steps.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == "fsdd"

"""A device that cannot be used is refused in one line."""

import pytest
import torch

from audiovq.config.errors import AudiovqError
from audiovq.runtime.device import pick_device


@pytest.mark.parametrize("name", ["mps", "mps:0", "cuda:1", "xpu", "hpu", "meta", "gpu", ""])
def test_a_device_that_cannot_be_used_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    says = "no .* found; use cpu or auto" if name[:2] in ("mp", "cu") else "give auto, cpu, cuda"
    with pytest.raises(AudiovqError, match=f"--device {name}: {says}"):
        pick_device(name)
    assert pick_device("cpu") == pick_device("auto") == torch.device("cpu")

"""Models of images are refused as a codec of sounds, and their card is one of images."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
from tiny_models import tiny_model

from audiovq.codec.files import encode_files, reconstruct_files
from audiovq.config.errors import AudiovqError
from audiovq.dataset.dataset import Dataset
from audiovq.models.model import Model
from audiovq.training.card import model_card


@pytest.fixture
def of_images() -> Model:
    model = tiny_model()
    config = dataclasses.replace(model.spectrogram.config, images=True, sample_rate=1, hop_length=1)
    model.spectrogram.config = config
    return model


@pytest.mark.parametrize("verb", [encode_files, reconstruct_files])
def test_a_model_of_images_is_refused_before_any_recording_is_read(
    verb: Callable[..., Any], of_images: Model, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", [0.1] * 4000, 8000)
    with pytest.raises(AudiovqError, match="the model is one of images"):
        verb(of_images, tmp_path / "a.wav", tmp_path / "out", say=pytest.fail)
    assert not (tmp_path / "out").exists()


def test_the_card_of_a_model_of_images_speaks_of_no_sounds(
    of_images: Model, dataset: Dataset
) -> None:
    line = model_card(of_images, dataset).splitlines()[2]
    assert line == "Images of up to 30 × 16 pixels; 16 codes an image, 64 bits."

"""What a new model refuses before it is trained."""

import pytest
from tiny_models import AUTOENCODER, SPECTROGRAM, changed

from audiovq.config.errors import AudiovqError
from audiovq.models.entropy.context_tables import LARGEST_TABLES, table_entries
from audiovq.models.model import new_model


@pytest.mark.parametrize("quantizers", [8, 64])
def test_codebooks_whose_context_tables_would_be_too_large_are_refused_with_the_largest(
    quantizers: int,
) -> None:
    config = changed(AUTOENCODER, num_quantizers=quantizers, codebook_size=8192)
    with pytest.raises(AudiovqError, match="codebook_size 8192: with num_quantizers") as refusal:
        new_model(SPECTROGRAM, config, {}, [], 30)
    most = int(str(refusal.value).split("at most ")[1].split(",")[0])
    sizes = [table_entries(quantizers, size) for size in (most, most + 1)]
    assert sizes[0] <= LARGEST_TABLES < sizes[1]
    new_model(SPECTROGRAM, changed(config, codebook_size=most), {}, [], 30)

"""Embeddings of labels that are numbers, in every prior."""

import pytest
import torch
from tiny_models import AUTOENCODER, MASKED, PRIOR, SPECTROGRAM, changed, shake

from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import SamplingConfig
from audiovq.dataset.numbers import Numbers
from audiovq.models.model import Model, new_model
from audiovq.models.priors.labels import NumberEmbedding, label_embeddings
from audiovq.models.priors.sampling import sample

LABELS = {"kind": ["a", "b"], "note": Numbers(40, 64, True)}


def model() -> Model:
    torch.manual_seed(0)
    found = new_model(SPECTROGRAM, AUTOENCODER, LABELS, [((0, 500), 1)], 30)
    found.prior, found.masked = found.new_prior(PRIOR), found.new_masked(MASKED)
    for part in (found.autoencoder, found.prior, found.masked):
        shake(part)
        part.eval()
    return found


def test_near_numbers_have_near_vectors_and_a_missing_one_its_own() -> None:
    torch.manual_seed(0)
    numbers = LABELS["note"]
    embedding = NumberEmbedding(len(numbers), numbers.ends, 32)
    middle = numbers.index("52")
    indices = torch.tensor([middle, middle + 1, middle + 400, len(numbers)])
    with torch.no_grad():
        here, beside, far, missing = embedding(indices)
    assert (here - beside).norm() < 0.1 * (here - far).norm()
    torch.testing.assert_close(missing, embedding.missing)


def test_embeddings_of_words_are_as_before() -> None:
    torch.manual_seed(0)
    mixed = label_embeddings((2, 5), {1: (1, 3)}, 8)
    assert isinstance(mixed[0], torch.nn.Embedding)
    assert isinstance(mixed[1], NumberEmbedding)


def test_a_number_changes_what_priors_predict_and_can_be_open() -> None:
    found = model()
    assert found.prior is not None
    tokens = torch.zeros(3, 1, dtype=torch.long)
    labels = torch.tensor([[0, 500], [0, 900], [2, len(LABELS["note"])]])
    with torch.inference_mode():
        logits = found.prior(tokens, labels)
        assert not torch.allclose(logits[0], logits[1])
        torch.testing.assert_close(found.prior.open_labels(1), labels[2:])
        dropped = found.prior.hide_labels(labels, torch.Generator().manual_seed(0))
        found.prior.condition(dropped)
        assert found.masked is not None
        conditions = found.masked.condition(labels)
    assert not torch.allclose(conditions[0], conditions[1])


def test_sampling_follows_a_batch_of_numbers_as_it_does_each_alone() -> None:
    found = model()
    assert found.prior is not None
    labels = torch.tensor([[0, 500], [1, 2400]])
    cold = SamplingConfig(temperature=0)
    together = sample(found.prior, labels, cold, torch.Generator().manual_seed(0))
    for row, tokens in zip(labels, together, strict=True):
        alone = sample(found.prior, row[None], cold, torch.Generator().manual_seed(0))[0]
        assert tokens[: len(alone)].tolist() == alone.tolist()


def test_means_of_label_values_refuse_numbers_in_one_line() -> None:
    config = changed(AUTOENCODER, bottleneck="gaussian", conditional=True)
    with pytest.raises(AudiovqError, match=r"conditional: label note is a number"):
        new_model(SPECTROGRAM, config, LABELS, [], 30)

"""Laws of models that start from another: equal functions where both are equal, reasons where they cannot be."""

from dataclasses import replace
from itertools import permutations

import pytest
import torch
from tiny_models import LABELS, MASKED, PRIOR, SPECTROGRAM, shake, tiny_model, untrained
from torch import Tensor, nn

from audiovq.models.autoencoder.quantizers import Codebook
from audiovq.models.carry import (
    autoencoder_misfit,
    carry_autoencoder,
    carry_labels,
    carry_prior,
    prior_misfit,
)
from audiovq.models.model import Model, new_model
from audiovq.models.priors.base import Prior
from audiovq.models.priors.masked import MaskedPrior
from audiovq.models.priors.masking import MaskedClips

OTHER_ORDER = {"speaker": ["cyd", "ada", "bob"], "digit": ["1", "0"]}


def fresh(kind: str, labels: dict[str, list[str]], clip_frames: int) -> tuple[Model, Prior]:
    """A model whose prior, of a kind, has other random weights than that of `grown`."""
    torch.manual_seed(5)
    model = tiny_model(5, labels, clip_frames)
    model.prior = model.new_prior(replace(PRIOR, kind=kind))
    return model, model.prior.eval()


def grown(kind: str) -> tuple[Model, Prior]:
    torch.manual_seed(1)
    model = tiny_model(1)
    model.prior = model.new_prior(replace(PRIOR, kind=kind))
    shake(model.prior)
    return model, model.prior.eval()


def clips(model: Model) -> tuple[Tensor, Tensor]:
    """Tokens (3, length) and lengths of random clips of 7 columns."""
    generator = torch.Generator().manual_seed(3)
    vocabulary = model.vocabulary
    codes = torch.randint(16, (3, 1, vocabulary.rows, 7), generator=generator)
    return vocabulary.tokens(codes, torch.tensor([7, 4, 6]), torch.tensor([1, 2, 3]))


def rows(labels: dict[str, list[str]], *values: tuple[str, str]) -> Tensor:
    """Indices of values (digit, speaker) in `labels`."""
    named = ({"digit": digit, "speaker": speaker} for digit, speaker in values)
    return torch.tensor([[labels[name].index(one[name]) for name in labels] for one in named])


SAID = ("0", "ada"), ("1", "cyd"), ("1", "bob")


@pytest.mark.parametrize("kind", ["transformer", "pixelcnn"])
@pytest.mark.parametrize("clip_frames", [30, 60])
def test_a_carried_prior_gives_the_probabilities_of_its_origin_with_labels_in_another_order(
    kind: str, clip_frames: int
) -> None:
    origin, theirs = grown(kind)
    model, ours = fresh(kind, OTHER_ORDER, clip_frames)
    assert prior_misfit(ours, theirs) is None
    tokens, lengths = clips(origin)
    before = ours.log_likelihood(tokens, lengths, rows(OTHER_ORDER, *SAID))
    carry_prior(origin, ours, theirs, model.labels)
    expected = theirs.log_likelihood(tokens, lengths, rows(LABELS, *SAID))
    found = ours.log_likelihood(tokens, lengths, rows(OTHER_ORDER, *SAID))
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(before, expected, atol=0.1)


@pytest.mark.parametrize("kind", ["transformer", "pixelcnn"])
def test_shorter_clips_leave_the_first_columns_as_they_are(kind: str) -> None:
    origin, theirs = grown(kind)
    model, ours = fresh(kind, LABELS, 12)
    carry_prior(origin, ours, theirs, model.labels)
    tokens, labels = clips(origin)[0][:, :7], rows(LABELS, *SAID)
    assert torch.allclose(ours(tokens, labels), theirs(tokens, labels), atol=1e-5)


@pytest.mark.parametrize("clip_frames", [30, 60])
def test_a_carried_masked_prior_fills_holes_as_its_origin_does(clip_frames: int) -> None:
    origin, model = tiny_model(1, masked=True), tiny_model(5, OTHER_ORDER, clip_frames)
    ours, theirs = model.new_masked(MASKED).eval(), origin.masked
    assert theirs is not None
    assert prior_misfit(ours, theirs) is None
    carry_prior(origin, ours, theirs, model.labels)
    generator = torch.Generator().manual_seed(0)
    shape = 3, 1, 2, 7

    def masked(labels: dict[str, list[str]]) -> MaskedClips:
        return MaskedClips(
            torch.randint(16, shape, generator=generator.manual_seed(0)),
            torch.rand(shape, generator=generator) < 0.5,
            torch.tensor([7, 3, 5]),
            torch.tensor([0, 1, 2]),
            rows(labels, *SAID),
            torch.tensor([[True, True], [True, False], [False, False]]),
        )

    expected = theirs.loss(masked(LABELS))
    found = ours.loss(masked(OTHER_ORDER))
    assert torch.allclose(found[0], expected[0], atol=1e-5)


def test_an_unknown_column_stays_unknown_and_later_columns_begin_as_the_last_known_one() -> None:
    origin, model = tiny_model(1, masked=True), tiny_model(5, LABELS, 60)
    ours, theirs = model.new_masked(MASKED), origin.masked
    assert isinstance(theirs, MaskedPrior)
    carry_prior(origin, ours, theirs, model.labels)
    for new, old in (
        (ours.begin_embedding.weight, theirs.begin_embedding.weight),
        (ours.end_embedding.weight, theirs.end_embedding.weight),
    ):
        columns = len(old) - 1
        assert torch.equal(new[:columns], old[:columns])
        assert torch.equal(new[-1], old[-1])
        assert torch.equal(new[columns:-1], old[columns - 1].expand(len(new) - 1 - columns, -1))


def tables(labels: dict[str, list[str]], seed: int) -> nn.ModuleList:
    torch.manual_seed(seed)
    return nn.ModuleList(nn.Embedding(len(values) + 1, 4) for values in labels.values())


def condition(embeddings: nn.ModuleList, *indices: int) -> Tensor:
    pairs = zip(embeddings, indices, strict=True)
    return torch.stack([table(torch.tensor(i)) for table, i in pairs]).sum(dim=0)


@pytest.mark.parametrize("order", list(permutations(["0", "1", "2"])))
def test_equal_values_of_equal_labels_keep_their_embeddings_in_any_order(
    order: tuple[str, ...],
) -> None:
    old = {"digit": ["0", "1", "2"]}
    ours, theirs = tables({"digit": list(order)}, 1), tables(old, 2)
    carry_labels(ours, theirs, {"digit": list(order)}, old)
    for index, value in enumerate(order):
        assert torch.equal(condition(ours, index), condition(theirs, int(value)))
    assert torch.equal(condition(ours, 3), condition(theirs, 3)), "the unknown value"


def test_new_values_begin_at_the_unknown_one_and_differ() -> None:
    old, new = {"kind": ["kick", "hat"]}, {"kind": ["hat", "clap", "snare"]}
    ours, theirs = tables(new, 1), tables(old, 2)
    initial = [condition(ours, i).clone() for i in range(4)]
    carry_labels(ours, theirs, new, old)
    assert torch.equal(condition(ours, 0), condition(theirs, 1))
    for index in (1, 2):
        expected = condition(theirs, 2) + initial[index]
        assert torch.equal(condition(ours, index), expected)


def test_labels_that_are_missing_count_as_unknown_in_the_sum() -> None:
    old = {"kind": ["kick", "hat"], "kit": ["a", "b", "c"]}
    theirs = tables(old, 2)
    kept = tables({"kind": old["kind"]}, 1)
    carry_labels(kept, theirs, {"kind": old["kind"]}, old)
    assert torch.allclose(condition(kept, 1), condition(theirs, 1, 3))
    renamed = tables({"word": ["x"], "voice": ["y"]}, 1)
    initial = condition(renamed, 0, 1).clone()
    carry_labels(renamed, theirs, {"word": ["x"], "voice": ["y"]}, old)
    assert torch.allclose(condition(renamed, 0, 1), initial + condition(theirs, 2, 3))


def test_values_of_a_label_with_another_name_keep_their_embeddings() -> None:
    old, new = {"kind": ["kick", "hat"]}, {"folder": ["clap", "hat"]}
    ours, theirs = tables(new, 1), tables(old, 2)
    initial = [condition(ours, i).clone() for i in range(3)]
    carry_labels(ours, theirs, new, old)
    for index, known in enumerate((2, 1, 2)):  # hat is known, clap is not
        assert torch.allclose(condition(ours, index), initial[index] + condition(theirs, known))


def test_a_carried_autoencoder_has_the_codes_of_its_origin_and_needs_no_kmeans() -> None:
    settings = {"kmeans_start": True, "restart": False}
    origin, model = untrained(**settings), untrained(**settings)
    (book,) = origin.autoencoder.quantizer.codebooks()
    assert isinstance(book, Codebook)
    book.initialized.fill_(True)
    book.num_updates.fill_(1_000)
    book.cluster_size.fill_(1)
    book.embedding_sum.copy_(book.embedding)
    shake(model.autoencoder, 7)
    assert autoencoder_misfit(origin, model) is None
    carry_autoencoder(origin, model)
    images, frames = torch.rand(4, 1, 16, 28), torch.tensor([28, 9, 17, 4])
    codes = origin.autoencoder.encode(images, frames)
    assert torch.equal(model.autoencoder.encode(images, frames), codes)
    before = model.autoencoder.quantizer.codebooks()[0].vectors.clone()
    model.autoencoder.train()(images, frames)
    after = model.autoencoder.quantizer.codebooks()[0].vectors
    moved = (after - before).norm() / before.norm()
    assert 0 < moved < 0.5, "by moving averages, not by k-means"


def test_reasons_name_what_does_not_fit() -> None:
    origin = tiny_model()
    assert origin.prior is not None
    wider = replace(SPECTROGRAM, n_fft=64)
    other = new_model(wider, origin.autoencoder.config, {}, [((), 1)], 30)
    assert "have 16 bands, those of this dataset 32" in str(autoencoder_misfit(origin, other))
    finer = untrained(patch=(8, 2))
    assert "encoder.patch.weight" in str(autoencoder_misfit(origin, finer))
    larger = untrained(codebook_size=32)
    assert "codes are of another kind" in str(prior_misfit(larger.new_prior(PRIOR), origin.prior))
    cnn = origin.new_prior(replace(PRIOR, kind="pixelcnn"))
    assert prior_misfit(cnn, origin.prior) == "it is a Transformer, here a PixelCNN"
    deeper = origin.new_prior(replace(PRIOR, dim=32))
    assert "has another shape" in str(prior_misfit(deeper, origin.prior))

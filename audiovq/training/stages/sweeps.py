"""Fits how often the masked prior smooths new sounds: where the codes that it samples change more than recorded ones."""

from __future__ import annotations

import torch
from torch import Tensor

from audiovq.config.sampling import STEPS, SamplingConfig
from audiovq.dataset.dataset import Split
from audiovq.generation.inpaint import sample_masked_autocast
from audiovq.models.model import Model
from audiovq.models.priors.masked_sampling import ATTACK_COLUMNS
from audiovq.models.priors.masking import MaskedClips
from audiovq.training.stage import evenly_spaced

CLIPS = 64
"""Clips that are sampled again, at most."""
UNEVEN = 1.7
"""Ratio of the squared changes of sampled codes to those of recorded ones from which one sweep is made. It is 2.5 to 3.6 of drums
and 1.8 of notes with the windows of hits, which a sweep makes as even as recordings; 1.6 and less of notes with their own windows, of
dogs and of the model `sounds`, whose new sounds it takes further from recordings."""


@torch.inference_mode()
def fitted_sweeps(model: Model, split: Split) -> int:
    """`SamplingConfig.sweeps` of new sounds: 1 where clips of `split`, sampled again, change UNEVEN times as much, else 0.

    Sampled are all codes of clips that begin with their recordings, of equal lengths, levels and labels. Up to 24 kHz, where
    new sounds are sampled in time, 0.
    """
    masked, config = model.masked, model.spectrogram.config
    if masked is None or not config.is_wide:
        return 0
    begin = split.complete[:, 0].nonzero()[:, 0]
    at = begin[evenly_spaced(len(begin), CLIPS)][:CLIPS]
    if not len(at):
        return 0
    frames, autoencoder = split.num_frames[at], model.autoencoder
    codes = autoencoder.encode(split.spectrograms(at).to(model.device), frames)
    columns = autoencoder.num_columns(frames).to(model.device)
    codes = codes[..., : int(columns.max())]
    levels, labels = (x[at].to(model.device) for x in (split.levels, split.label_indices))
    clips = MaskedClips(
        codes, torch.ones_like(codes) > 0, columns, levels, labels, masked.complete(columns)
    )
    sampling = SamplingConfig(steps=STEPS, sweeps=0).settled(config.is_wide)
    sampled = sample_masked_autocast(masked, clips, sampling, torch.Generator().manual_seed(0))
    recorded = _change(codes, columns, masked.vectors)
    return int(recorded > 0 and _change(sampled, columns, masked.vectors) > UNEVEN * recorded)


def _change(codes: Tensor, columns: Tensor, vectors: Tensor) -> float:
    """Mean squared change, from a column after the attack to the next, of the sums of the codes' vectors."""
    parts = [vectors[q][codes[:, q]] for q in range(codes.shape[1])]
    sums = torch.stack(parts).sum(dim=0)[:, :, ATTACK_COLUMNS:]
    squares = sums.diff(dim=2).square().sum(dim=3)
    later = torch.arange(codes.shape[3], device=codes.device)[ATTACK_COLUMNS + 1 :]
    mask = (later < columns[:, None])[:, None].expand_as(squares)
    return float(squares[mask].mean()) if bool(mask.any()) else 0.0

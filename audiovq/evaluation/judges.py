"""What two unlike judges say of new sounds, beside real ones: both learn here, from clips that they are
not asked about afterwards.

The first (`evaluation.Classifier`) learns from augmented spectrograms of the dataset's, the second
(`listener.Listener`) from recordings as they are.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from audiovq.audio.waveform import Waveform
from audiovq.codec import codec
from audiovq.dataset import dataset as dataset_dataset
from audiovq.dataset.dataset import Dataset, Split
from audiovq.evaluation import classifier, distances, listener
from audiovq.evaluation.distances import frechet_distance
from audiovq.evaluation.originals import clip_waveforms
from audiovq.generation.sound import Sound
from audiovq.models.model import Model
from audiovq.spectral import spectrogram

SECONDS = 4.0
"""Of a sound that a judge hears: its beginning."""
REAL_CLIPS = 1_000
"""That are judged, at most."""
LEARNT_CLIPS = 1_500
"""That the second judge learns from, at most."""
KEPT_SHARE = 1 / 3
"""Of the training clips of each class, at most, that the second judge does not learn from: it compares
them with the real ones."""
FEWEST = 20
"""Sounds whose labels real clips have; with fewer, labels are not matched."""
BATCH = 32
"""Waveforms that are held at a time."""


def evaluate_labels(
    model: Model, dataset: Dataset, split: Split, sounds: Sequence[Sound], seed: int
) -> dict[str, Any]:
    """What both judges hear in new sounds and in clips of `split`: accuracy, Inception Score, diversity,
    and Fréchet distances of new sounds, training clips and reconstructions to the clips of `split`.

    `left_out` alone, with the reason, where no clips are left for a judge to learn from.
    """
    learnt_from = [s for s in (dataset.train, dataset.validation) if len(s) and s is not split]
    if split is dataset.train or sum(map(len, learnt_from)) < 2:
        return {"left_out": "no clips are left that a judge could be tested on, or learn from"}
    asked = torch.tensor(
        [
            [
                values.index(sound.labels[name]) if name in sound.labels else len(values)
                for name, values in model.labels.items()
            ]
            for sound in sounds
        ]
    )
    generator = torch.Generator().manual_seed(seed)
    real = torch.randperm(len(split), generator=generator)[:REAL_CLIPS].sort().values
    training = torch.randperm(len(dataset.train), generator=generator)
    new, like, kept = matched(
        asked, split.label_indices[real], dataset.train.label_indices[training], generator
    )
    heard = _heard(model, dataset, split, real, like)
    figures = _first_judge(model, dataset, split, real, learnt_from, sounds, asked, heard, seed)
    if len(new) > 1:
        figures["second_judge"] = _second_judge(
            model, dataset, sounds, asked, (new, like, training[kept]), heard, seed
        )
    return figures


def matched(
    asked: Tensor, real: Tensor, training: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Label indices (sounds, labels), (clips, labels), (clips, labels) → places in each, as many in all
    three, with the same labels at the same place.

    So a difference between two sets is one of sound, and not of which labels happened to be drawn. No
    clip is taken twice, and KEPT_SHARE of the training clips of a class at most. With fewer than FEWEST
    such triples places are drawn at random.
    """
    queues = [defaultdict[tuple[int, ...], list[int]](list) for _ in range(3)]
    for queue, labels in zip(queues, (asked, real, training), strict=True):
        for place, values in enumerate(labels.tolist()):
            queue[tuple(values)].append(place)
    triples: list[tuple[int, int, int]] = []
    for values, places in queues[0].items():
        own, others = queues[1][values], queues[2][values]
        triples += zip(places, own, others[: int(KEPT_SHARE * len(others))], strict=False)
    if len(triples) >= FEWEST:
        columns = torch.tensor(triples).T
    else:
        n = min(len(asked), len(real), int(KEPT_SHARE * len(training)))
        columns = torch.stack(
            [
                torch.randperm(len(labels), generator=generator)[:n]
                for labels in (asked, real, training)
            ]
        )
    return columns[0], columns[1], columns[2]


@dataclass
class Heard:
    """What the judges are given of real clips."""

    labels: Tensor
    """(clips, labels)"""
    real: list[Tensor]
    """For the second judge."""
    reconstructed: list[Tensor]
    """The same clips through the codes, of those that are compared; for the second judge,"""
    images: list[Tensor]
    """and for the first."""
    recordings: bool
    """Whether these are the recordings; if not, they are their true spectrograms made into sound."""


def _heard(model: Model, dataset: Dataset, split: Split, places: Tensor, compared: Tensor) -> Heard:
    """Clips of `split` at `places`, `compared` of these through the codes too, a batch at a time."""
    heard = Heard(split.label_indices[places], [], [], [], True)
    through = set(compared.tolist())
    again: dict[int, tuple[Tensor, Tensor]] = {}
    begin = 0
    for waveforms, recordings in _waveforms(model, dataset, split, places):
        heard.recordings &= recordings
        heard.real += [listener.mel_image(w, model.sample_rate) for w in waveforms]
        chosen = [i for i in range(len(waveforms)) if begin + i in through]
        clips = [waveforms[i] for i in chosen]
        back = codec.decode(model, codec.encode(model, clips))
        images = spectrogram.waveform_images(model.spectrogram, back)
        for i, waveform, image in zip(chosen, back, images, strict=True):
            again[begin + i] = listener.mel_image(waveform, model.sample_rate), image
        begin += len(waveforms)
    heard.reconstructed = [again[place][0] for place in compared.tolist()]
    heard.images = [again[place][1] for place in compared.tolist()]
    return heard


def _waveforms(
    model: Model, dataset: Dataset, split: Split, places: Tensor
) -> Iterator[tuple[list[Waveform], bool]]:
    """The beginnings (samples,) of clips at `places`, which only rise, BATCH together: those of the
    recordings, and True; where one is gone, all of its batch from their true spectrograms, and False."""
    most = int(SECONDS * model.sample_rate)
    recorded = clip_waveforms(dataset, [split.clips[place] for place in places.tolist()])
    for own in places.split(BATCH):
        waveforms = list(itertools.islice(recorded, len(own)))
        there = [waveform[:most].copy() for waveform in waveforms if waveform is not None]
        if len(there) == len(own):
            yield there, True
            continue
        num_samples = split.num_samples[own]
        with torch.inference_mode():
            inverted = model.spectrogram.inverse(
                split.spectrograms(own).to(model.device),
                split.levels[own].to(model.device),
                num_samples.to(model.device),
            )
        lengths = num_samples.clamp(max=most).tolist()
        yield [w[:n].cpu().numpy() for w, n in zip(inverted, lengths, strict=True)], False


def _first_judge(
    model: Model,
    dataset: Dataset,
    split: Split,
    places: Tensor,
    learnt_from: Sequence[Split],
    sounds: Sequence[Sound],
    asked: Tensor,
    heard: Heard,
    seed: int,
) -> dict[str, Any]:
    """Accuracy, Inception Score, diversity and Fréchet distance in the classifier's features."""
    judge = classifier.train_classifier(learnt_from, seed)
    picked = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(seed))
    most = 1 + int(SECONDS * model.sample_rate) // model.spectrogram.config.hop_length
    waveforms = [sound.waveform[: int(SECONDS * model.sample_rate)] for sound in sounds]
    images = spectrogram.waveform_images(model.spectrogram, waveforms)
    real = dataset_dataset.split_images(split, places)
    training = dataset_dataset.split_images(dataset.train, picked[: len(sounds)].sort().values)
    of_new, of_real, of_training, of_reconstructed = (
        classifier.judge(judge, [image[..., :most] for image in clips])
        for clips in (images, real, training, heard.images)
    )
    labels = split.label_indices[places]
    new, old = of_new.accuracy(asked), of_real.accuracy(labels)
    figures: dict[str, Any] = {"accuracy": {}, "inception_score": {}}
    for i, name in enumerate(model.labels):
        figures["accuracy"][name] = {"generated": new[i], "real": old[i]}
        figures["inception_score"][name] = {
            "generated": distances.inception_score(of_new.probabilities[i]),
            "real": distances.inception_score(of_real.probabilities[i]),
        }
    if min(len(sounds), len(places), len(training)) > 1:
        figures["frechet_distance"] = {
            "generated": frechet_distance(of_new.features, of_real.features),
            "training_clips": frechet_distance(of_training.features, of_real.features),
        }
    if "frechet_distance" in figures and len(heard.images) > 1:
        distance = frechet_distance(of_reconstructed.features, of_real.features)
        figures["frechet_distance"]["reconstructed"] = distance
    spreads = distances.class_spreads(of_new.features, asked)
    real_spreads = distances.class_spreads(of_real.features, labels)
    if both := spreads.keys() & real_spreads.keys():
        figures["diversity_within_classes"] = {
            "classes": len(both),
            "generated": math.fsum(spreads[values] for values in both) / len(both),
            "real": math.fsum(real_spreads[values] for values in both) / len(both),
        }
    return figures


def _second_judge(
    model: Model,
    dataset: Dataset,
    sounds: Sequence[Sound],
    asked: Tensor,
    compared: tuple[Tensor, Tensor, Tensor],
    heard: Heard,
    seed: int,
) -> dict[str, Any]:
    """Accuracy on new sounds and real clips, and Fréchet distances of the sets that `matched` gave."""
    new, like, kept = compared
    kept = kept.sort().values
    taken = torch.ones(len(dataset.train), dtype=torch.bool)
    taken[kept] = False
    learnt = torch.arange(len(dataset.train))[taken]
    drawn = torch.randperm(len(learnt), generator=torch.Generator().manual_seed(seed))
    learnt = learnt[drawn[:LEARNT_CLIPS]].sort().values

    def images(places: Tensor) -> Iterator[Tensor]:
        for waveforms, recordings in _waveforms(model, dataset, dataset.train, places):
            heard.recordings &= recordings
            yield from (listener.mel_image(w, model.sample_rate) for w in waveforms)

    judge = listener.train_listener(
        list(images(learnt)),
        dataset.train.label_indices[learnt],
        [len(values) for values in model.labels.values()],
        seed,
    )
    most = int(SECONDS * model.sample_rate)
    of_new, of_real, of_training, of_reconstructed = (
        listener.listen(judge, clips)
        for clips in (
            [listener.mel_image(s.waveform[:most], model.sample_rate) for s in sounds],
            heard.real,
            list(images(kept)),
            heard.reconstructed,
        )
    )
    old = of_real.accuracy(heard.labels)
    return {
        "clips": len(new),
        "learnt_from": "recordings" if heard.recordings else "inverted spectrograms",
        "accuracy": {
            name: {"generated": of_new.accuracy(asked)[i], "real": old[i]}
            for i, name in enumerate(model.labels)
        },
        "frechet_distance": {
            "generated": frechet_distance(of_new.features[new], of_real.features[like]),
            "reconstructed": frechet_distance(of_reconstructed.features, of_real.features[like]),
            "training_clips": frechet_distance(of_training.features, of_real.features[like]),
        },
    }

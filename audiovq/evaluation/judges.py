"""Generated sounds against real ones, by two judges that are trained here.

The first (`classifier.Classifier`) is trained on augmented spectrograms of the dataset, the second
(`listener.Listener`) on unmodified recordings. Neither is tested on clips that it was trained on.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from audiovq.audio.waveform import Waveform
from audiovq.codec import codec
from audiovq.config.sampling import Inversion
from audiovq.dataset import dataset as dataset_dataset
from audiovq.dataset.dataset import Dataset, Split, sounds_begin
from audiovq.evaluation import classifier, distances, listener
from audiovq.evaluation.distances import frechet_distance
from audiovq.evaluation.originals import clip_waveforms
from audiovq.evaluation.reconstruction import reconstruct
from audiovq.generation.sound import Sound
from audiovq.models.model import Model
from audiovq.spectral import spectrogram

SECONDS = 4.0
"""Duration that is judged, from the beginning of each sound."""
RESERVED_SHARE = 1 / 3
"""Maximum share of the training clips of a class that the second judge is not trained on, so that it can
compare them with real clips."""
MIN_MATCHED = 20
"""Minimum number of sounds with the same labels as real clips; with fewer, labels are not matched."""


@dataclass(frozen=True)
class JudgeLimits:
    """Limits of the training of judges, and of what they judge."""

    min_steps: int = 600
    max_steps: int = 1200
    """Training steps of the first judge."""
    second_max_steps: int = 300
    """Training steps of the second judge."""
    real_clips: int = 1_000
    """Real clips that are judged."""
    training_clips: int = 1_500
    """Clips that the second judge is trained on."""
    batch: int = 32
    """Waveforms in memory at a time."""


DEFAULT_LIMITS = JudgeLimits()
"""The limits of `audiovq evaluate`."""


def evaluate_with_judges(
    model: Model,
    dataset: Dataset,
    split: Split,
    sounds: Sequence[Sound],
    seed: int,
    limits: JudgeLimits | None = None,
) -> dict[str, Any]:
    """Judge generated sounds and real clips of `split`: accuracy, Inception Score, diversity, and Fréchet
    distances of generated sounds, training clips and reconstructions to the clips of `split`.

    Accuracy is of the sounds whose label value a real clip has, too: `untested` names the other values.
    Only `left_out`, with the reason, if no clips remain to train a judge on.
    """
    dataset = dataset.of_words()
    split = getattr(dataset, split.name)
    model = replace(model, labels=dataset.labels)
    training = [s for s in (dataset.train, dataset.validation) if len(s) and s is not split]
    if split is dataset.train or sum(map(len, training)) < 2:
        return {"left_out": "judges: too few clips to train and test them on different ones"}
    limits = limits or DEFAULT_LIMITS
    generator = torch.Generator().manual_seed(seed)
    real = comparable(dataset, split, generator)[: limits.real_clips].sort().values
    training_order = comparable(dataset, dataset.train, generator)
    requested = _label_indices(model, sounds)
    generated, matching, reserved = match_labels(
        requested, split.label_indices[real], dataset.train.label_indices[training_order], generator
    )
    task = _Task(model, dataset, split, sounds, requested, real, seed, limits)
    clips = _real_clips(task, matching)
    figures = _first_judge(task, training, clips)
    if len(generated) > 1:
        matched = generated, matching, training_order[reserved].sort().values
        figures["second_judge"] = _second_judge(task, matched, clips)
    return figures


def comparable(dataset: Dataset, split: Split, generator: torch.Generator) -> Tensor:
    """Indices of the clips of `split` that begin as new sounds do, in random order; all if none does."""
    order = torch.randperm(len(split), generator=generator)
    beginning = order[split.complete[order, 0]]
    return beginning if sounds_begin(dataset.train.complete) and len(beginning) else order


def _label_indices(model: Model, sounds: Sequence[Sound]) -> Tensor:
    """(sounds, labels); one past the last value where a sound lacks the label."""
    return torch.tensor(
        [
            [
                values.index(sound.labels[name]) if name in sound.labels else len(values)
                for name, values in model.labels.items()
            ]
            for sound in sounds
        ]
    )


def match_labels(
    generated: Tensor, real: Tensor, training: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Indices into three sets of clips such that the nth of each have the same labels.

    Arguments are label indices (sounds, labels) and twice (clips, labels). So distances between the sets
    do not depend on which labels were sampled. No clip is used twice, and at most RESERVED_SHARE of the
    training clips of a class. With fewer than MIN_MATCHED such triples, indices are random instead.
    """
    queues = [defaultdict[tuple[int, ...], list[int]](list) for _ in range(3)]
    for queue, labels in zip(queues, (generated, real, training), strict=True):
        for index, values in enumerate(labels.tolist()):
            queue[tuple(values)].append(index)
    triples: list[tuple[int, int, int]] = []
    for values, indices in queues[0].items():
        in_real, in_training = queues[1][values], queues[2][values]
        reserved = in_training[: int(RESERVED_SHARE * len(in_training))]
        triples += zip(indices, in_real, reserved, strict=False)
    if len(triples) >= MIN_MATCHED:
        columns = torch.tensor(triples).T
    else:
        n = min(len(generated), len(real), int(RESERVED_SHARE * len(training)))
        columns = torch.stack(
            [
                torch.randperm(len(labels), generator=generator)[:n]
                for labels in (generated, real, training)
            ]
        )
    return columns[0], columns[1], columns[2]


@dataclass(frozen=True)
class _Task:
    """The sounds to judge, and the settings."""

    model: Model
    dataset: Dataset
    split: Split
    """Of the real clips."""
    sounds: Sequence[Sound]
    requested: Tensor
    """(sounds, labels) indices of the labels that were asked for."""
    real: Tensor
    """Indices of the real clips in `split`, ascending."""
    seed: int
    limits: JudgeLimits

    @property
    def max_samples(self) -> int:
        """Samples of each sound that are judged."""
        return int(SECONDS * self.model.sample_rate)

    @property
    def tested(self) -> Tensor:
        """`requested`, one past the last value where no real clip has the value: what a judge says of it is untested."""
        labels, tested = self.split.label_indices[self.real], self.requested.clone()
        for i, values in enumerate(self.model.labels.values()):
            tested[~torch.isin(tested[:, i], labels[:, i]), i] = len(values)
        return tested


@dataclass
class _RealClips:
    """Real clips as the judges take them."""

    labels: Tensor
    """(clips, labels)"""
    mel_images: list[Tensor]
    """For the second judge."""
    matching: Tensor
    """Indices of the clips that are also judged after encoding and decoding."""
    coded_mel_images: dict[str, list[Tensor]]
    """These clips after encoding and decoding, by the name of their figure, for the second judge,"""
    coded_images: dict[str, list[Tensor]]
    """and for the first."""
    from_recordings: bool
    """Whether all waveforms are from recordings; otherwise from inverted spectrograms."""


def _real_clips(task: _Task, matching: Tensor) -> _RealClips:
    """The real clips of a task, those at `matching` after encoding and decoding as well."""
    model = task.model
    names = list(_decoders(model))
    clips = _RealClips(task.split.label_indices[task.real], [], matching, {}, {}, True)
    wanted = set(matching.tolist())
    coded: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
    begin = 0
    for waveforms, from_recordings in _waveforms(task, task.split, task.real):
        clips.from_recordings &= from_recordings
        clips.mel_images += [listener.mel_image(w, model.sample_rate) for w in waveforms]
        chosen = [i for i in range(len(waveforms)) if begin + i in wanted]
        for name, decoded in _coded(model, [waveforms[i] for i in chosen]).items():
            images = spectrogram.waveform_images(model.spectrogram, decoded)
            for i, waveform, image in zip(chosen, decoded, images, strict=True):
                coded[name, begin + i] = listener.mel_image(waveform, model.sample_rate), image
        begin += len(waveforms)
    for name in names:
        pairs = [coded[name, index] for index in matching.tolist()]
        clips.coded_mel_images[name] = [mel_image for mel_image, _ in pairs]
        clips.coded_images[name] = [image for _, image in pairs]
    return clips


def _coded(model: Model, waveforms: Sequence[Waveform]) -> dict[str, list[Waveform]]:
    """Waveforms after encoding and decoding, by the name of their figure; also of a model without codes."""
    if not model.autoencoder.config.quantizes:
        return {"reconstructed": reconstruct(model, waveforms)}
    encoded = codec.encode(model, waveforms)
    return {
        name: codec.decode(model, encoded, inversion=inversion)
        for name, inversion in _decoders(model).items()
    }


def _decoders(model: Model) -> dict[str, Inversion]:
    """The decoders of reconstructed clips, by the name of their figure."""
    decoders = {"reconstructed": Inversion(decoder="faithful")}
    if model.vivid is not None and model.autoencoder.config.quantizes:
        decoders["reconstructed_vivid"] = Inversion(decoder="vivid")
    return decoders


def _waveforms(task: _Task, split: Split, indices: Tensor) -> Iterator[tuple[list[Waveform], bool]]:
    """Beginnings (..., samples) of the clips of `split` at ascending `indices`, in batches.

    Each batch comes with True if its waveforms are from recordings. If a recording is missing, the whole
    batch is from inverted spectrograms, and comes with False.
    """
    model, most = task.model, task.max_samples
    recordings = clip_waveforms(task.dataset, [split.clips[index] for index in indices.tolist()])
    for batch in indices.split(task.limits.batch):
        waveforms = list(itertools.islice(recordings, len(batch)))
        found = [waveform[..., :most].copy() for waveform in waveforms if waveform is not None]
        if len(found) == len(batch):
            yield found, True
            continue
        num_samples = split.num_samples[batch]
        with torch.inference_mode():
            inverted = model.spectrogram.inverse(
                split.spectrograms(batch).to(model.device),
                split.levels[batch].to(model.device),
                num_samples.to(model.device),
            )
        lengths = num_samples.clamp(max=most).tolist()
        yield [w[..., :n].cpu().numpy() for w, n in zip(inverted, lengths, strict=True)], False


def _first_judge(task: _Task, training: Sequence[Split], clips: _RealClips) -> dict[str, Any]:
    """Accuracy, Inception Score, diversity and Fréchet distance, by the features of the first judge."""
    model, dataset, sounds = task.model, task.dataset, task.sounds
    judge = classifier.train_classifier(
        training,
        task.seed,
        pool=classifier.pooling(dataset.spectrogram),
        min_steps=task.limits.min_steps,
        max_steps=task.limits.max_steps,
    )
    order = comparable(dataset, dataset.train, torch.Generator().manual_seed(task.seed))
    max_frames = 1 + task.max_samples // model.spectrogram.config.hop_length
    waveforms = [sound.waveform[..., : task.max_samples] for sound in sounds]
    training_images = dataset_dataset.split_images(
        dataset.train, order[: len(sounds)].sort().values
    )
    of_generated, of_real, of_training, *of_coded = (
        classifier.judge(judge, [image[..., :max_frames] for image in images])
        for images in (
            spectrogram.waveform_images(model.spectrogram, waveforms),
            dataset_dataset.split_images(task.split, task.real),
            training_images,
            *(clips.coded_images.values() if len(clips.matching) else ()),
        )
    )
    figures: dict[str, Any] = {
        "real_clips": len(task.real),
        "accuracy": {},
        "inception_score": {},
    }
    tested = task.tested
    accuracy = of_generated.accuracy(tested), of_real.accuracy(clips.labels)
    for i, (name, values) in enumerate(model.labels.items()):
        untested = task.requested[task.requested[:, i] != tested[:, i], i].unique().tolist()
        figures["accuracy"][name] = {
            "generated": accuracy[0][i],
            "real": accuracy[1][i],
            "sounds": int((tested[:, i] < len(values)).sum()),
            "untested": [values[index] for index in untested],
        }
        figures["inception_score"][name] = {
            "generated": distances.inception_score(of_generated.probabilities[i]),
            "real": distances.inception_score(of_real.probabilities[i]),
        }
    if min(len(sounds), len(task.real), len(training_images)) > 1:
        figures["frechet_distance"] = {
            "generated": frechet_distance(of_generated.features, of_real.features),
            "training_clips": frechet_distance(of_training.features, of_real.features),
        }
    if "frechet_distance" in figures and len(clips.matching) > 1:
        figures["frechet_distance"] |= {
            name: frechet_distance(coded.features, of_real.features[clips.matching])
            for name, coded in zip(clips.coded_images, of_coded, strict=True)
        }
    spreads = distances.class_spreads(of_generated.features, task.requested)
    real_spreads = distances.class_spreads(of_real.features, clips.labels)
    if both := spreads.keys() & real_spreads.keys():
        figures["diversity_within_classes"] = {
            "classes": len(both),
            "generated": math.fsum(spreads[values] for values in both) / len(both),
            "real": math.fsum(real_spreads[values] for values in both) / len(both),
        }
    return figures


def _second_judge(
    task: _Task, matched: tuple[Tensor, Tensor, Tensor], clips: _RealClips
) -> dict[str, Any]:
    """Accuracy on generated sounds and real clips, and Fréchet distances between the sets of `matched`.

    `matched`: as from `match_labels`, the last as indices into the training split, ascending.
    """
    model, train, limits = task.model, task.dataset.train, task.limits
    generated, matching, reserved = matched
    free = torch.ones(len(train), dtype=torch.bool)
    free[reserved] = False
    learnt = torch.arange(len(train))[free]
    order = torch.randperm(len(learnt), generator=torch.Generator().manual_seed(task.seed))
    learnt = learnt[order[: limits.training_clips]].sort().values

    def mel_images(indices: Tensor) -> Iterator[Tensor]:
        for waveforms, from_recordings in _waveforms(task, train, indices):
            clips.from_recordings &= from_recordings
            yield from (listener.mel_image(w, model.sample_rate) for w in waveforms)

    judge = listener.train_listener(
        list(mel_images(learnt)),
        train.label_indices[learnt],
        [len(values) for values in model.labels.values()],
        task.seed,
        max_steps=limits.second_max_steps,
    )
    waveforms = [sound.waveform[..., : task.max_samples] for sound in task.sounds]
    of_generated, of_real, of_training, *of_coded = (
        listener.listen(judge, images)
        for images in (
            [listener.mel_image(w, model.sample_rate) for w in waveforms],
            clips.mel_images,
            list(mel_images(reserved)),
            *clips.coded_mel_images.values(),
        )
    )
    accuracy = of_generated.accuracy(task.tested), of_real.accuracy(clips.labels)
    target = of_real.features[matching]
    return {
        "clips": len(generated),
        "learnt_from": "recordings" if clips.from_recordings else "inverted spectrograms",
        "accuracy": {
            name: {"generated": accuracy[0][i], "real": accuracy[1][i]}
            for i, name in enumerate(model.labels)
        },
        "frechet_distance": {
            "generated": frechet_distance(of_generated.features[generated], target),
            "training_clips": frechet_distance(of_training.features, target),
            **{
                name: frechet_distance(coded.features, target)
                for name, coded in zip(clips.coded_mel_images, of_coded, strict=True)
            },
        },
    }

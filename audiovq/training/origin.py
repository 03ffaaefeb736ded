"""The origin: a trained model whose weights a training starts from (`train --from`)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from audiovq.config.errors import AudiovqError
from audiovq.config.settings import TrainConfig
from audiovq.dataset.numbers import LabelValues, Numbers
from audiovq.models.carry import autoencoder_misfit, carry_prior, keeps, prior_misfit
from audiovq.models.checkpoint import PARTS, load
from audiovq.models.folder import FEW_CLIPS, require_model
from audiovq.models.model import Model
from audiovq.models.priors.base import Prior
from audiovq.models.priors.masked import MaskedPrior

FREE = {
    "autoencoder.bottleneck": {"commitment", "decay", "kmeans_start", "restart"}
    | {"gradient_through", "kl_weight", "kl_warmup"},
    "prior": {"dropout", "label_dropout"},
    "masked": {"dropout", "label_dropout"},
}
"""Settings of the networks that do not change their shape, by part; those of the origin need not be kept."""
SECTIONS = "Grown from", "Sources", "Licences", "Training data", "What it learnt from"
"""Headings of a model card whose sections are kept in the cards of models that start from it."""
VIVID_SHARE = 0.15
"""Share of the time for the vivid decoder, where the origin has one and the settings ask for none."""
KEPT_BELOW = FEW_CLIPS
"""Training clips below which encoder and codebook stay the origin's, unless the settings say otherwise: a prior cannot learn
other codes from few clips."""
MASKED_SHARE = 0.2
"""The same for the masked prior of an origin without another prior."""


@dataclass(frozen=True)
class Origin:
    """A trained model, as the start of another."""

    path: str
    """As the user gave it."""
    name: str
    """Name of its folder, which records and cards have; the path would disclose more."""
    model: Model
    """On the CPU."""
    card: str
    """Its README.md; empty where it has none."""
    continues: bool = False
    """Whether it is the same model, finished, and is trained further."""

    @classmethod
    def read(cls, folder: Path | str) -> Origin:
        """The model in `folder`, or of that name. Raises AudiovqError as `checkpoint.load`."""
        model, where = load(folder), require_model(folder)
        try:
            card = (where / "README.md").read_text(encoding="utf-8")
        except (OSError, ValueError):
            card = ""
        return cls(str(folder), where.resolve().name, model, card)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the checksums of its networks and context tables."""
        parts = [p for p in ("autoencoder", *PARTS) if p in self.model.header]
        sums = (str(self.model.header[part]["sha256"]) for part in parts)
        return hashlib.sha256(" ".join(sums).encode()).hexdigest()

    @property
    def record(self) -> dict[str, str]:
        """Name and fingerprint, as settings.json and model.json have them."""
        return {"name": self.name, "sha256": self.fingerprint}

    def adopt(self, config: TrainConfig) -> TrainConfig:
        """`config` with the networks of the origin, with a vivid decoder where the origin has one, and with a masked
        prior where that is the origin's only one."""
        model, theirs = self.model, self.model.autoencoder.config
        autoencoder = replace(
            config.autoencoder,
            network=theirs.network,
            bottleneck=theirs.bottleneck,
            loss=theirs.loss,
        )
        vivid = config.vivid_share or (VIVID_SHARE if model.vivid else 0.0)
        config = replace(config, autoencoder=autoencoder, vivid_share=vivid)
        if model.prior is not None:
            config = replace(config, prior=model.prior.config)
        elif model.masked is not None:
            config = replace(config, masked_share=config.masked_share or MASKED_SHARE)
        if model.masked is not None:
            config = replace(config, masked=model.masked.config)
        return config

    def settle(self, config: TrainConfig) -> TrainConfig:
        """`config` with the origin's patch and row mixing, where it gives none.

        Raises AudiovqError where it gives a network another shape than the origin's.
        """
        theirs = self.adopt(config)
        for part in ("autoencoder.network", "autoencoder.bottleneck", "prior", "masked"):
            # Not to_json, which leaves out some defaults.
            settings, wanted = asdict(_part(config, part)), asdict(_part(theirs, part))
            for name, value in wanted.items():
                given = settings[name]
                fitted = given is None and name in ("patch", "row_mixing")
                if fitted or name in FREE.get(part, ()):
                    continue
                if given != value:
                    flag = f"--{part}.{name}".replace("_", "-")
                    raise AudiovqError(
                        f"{flag} {given}: the model {self.name} has {value}; leave the flag out, or --from"
                    )
        network = theirs.autoencoder.network
        return replace(config, autoencoder=replace(config.autoencoder, network=network))

    def require_fit(self, model: Model) -> None:
        """Raise AudiovqError where the autoencoder of `model` cannot start from the origin's."""
        if reason := autoencoder_misfit(self.model, model):
            ours = model.spectrogram.config
            differs = ours != self.model.spectrogram.config and not ours.images
            advice = f"; {self._how()}" if differs else ""
            raise AudiovqError(f"--from {self.name}: {reason}{advice}")

    def trains_only_masked(self, config: TrainConfig) -> bool:
        """Whether the masked prior is the only one that is trained: the origin has no other."""
        return (
            self.model.prior is None and self.model.masked is not None and config.masked_share > 0
        )

    def keeps_codes(self, config: TrainConfig, clips: int) -> bool:
        """Whether encoder and codebook stay as they are in a training on this number of clips.

        By default, with fewer than KEPT_BELOW; never without a prior in the origin and in the training.
        """
        has_prior = self.model.prior is not None or self.model.masked is not None
        if not (has_prior and config.autoencoder.quantizes and config.autoencoder_share < 1):
            return False
        return clips < KEPT_BELOW if config.keep_codes is None else config.keep_codes

    def start_prior(self, ours: Prior | MaskedPrior, labels: LabelValues) -> bool:
        """Start a prior on the CPU, with these labels, from the origin's of its kind; returns whether it fits."""
        theirs = self._counterpart(ours)
        if theirs is None or prior_misfit(ours, theirs):
            return False
        carry_prior(self.model, ours, theirs, labels)
        return True

    def lines(self, model: Model, config: TrainConfig, clips: int) -> Iterator[str]:
        """What differs from the origin, what `model` starts with and what it does not, as lines for the user.

        `clips`: training clips.
        """
        yield from self._differences(model)
        carried, lines = ["autoencoder"], list[str]()
        missing = f"starts from scratch: {self.name} has none"
        if config.vivid_share and config.autoencoder.quantizes:
            if self.model.vivid:
                carried.append("vivid decoder")
            else:
                lines.append(f"vivid decoder: {missing}")
        if self.model.context and config.autoencoder.quantizes:
            carried.append("context tables")
        priors: list[tuple[str, Prior | MaskedPrior]] = []
        if config.autoencoder_share < 1 and config.autoencoder.quantizes:
            with torch.random.fork_rng(devices=[]):  # a resumed run makes none of them
                if not self.trains_only_masked(config):
                    priors.append(("prior", model.new_prior(config.prior)))
                if config.masked_share:
                    priors.append(("masked prior", model.new_masked(config.masked)))
        for part, ours in priors:
            theirs = self._counterpart(ours)
            if theirs is None:
                lines.append(f"{part}: {missing}")
            elif reason := prior_misfit(ours, theirs):
                lines.append(f"{part}: starts from scratch: {reason}")
            else:
                carried.append(part)
        yield f"from {self.name}: {', '.join(carried)}"
        yield from lines
        if self.trains_only_masked(config):
            yield f"prior: none, as {self.name} has none; new sounds come from the masked prior"
        if {"prior", "masked prior"} & set(carried):
            yield from self._labels(model.labels)
        if self.keeps_codes(config, clips):
            yield f"codes: those of {self.name}; of the autoencoder, the decoder alone is trained"

    def heritage(self) -> str:
        """What a card says about the origin, Markdown: its name, checksum, and the sections on its sources.

        Where the origin is the same model, what its card says about its own origin; empty where it has none.
        """
        if self.continues:
            return "\n\n".join(sections(self.card, SECTIONS[:1])).partition("\n\n")[2]
        kept = "\n\n".join(sections(self.card, SECTIONS))
        text = f"`{self.name}` ({self.fingerprint[:12]}), a model trained earlier."
        return f"{text}\n\n{kept}" if kept else text

    def _counterpart(self, ours: Prior | MaskedPrior) -> Prior | MaskedPrior | None:
        return self.model.masked if isinstance(ours, MaskedPrior) else self.model.prior

    def _differences(self, model: Model) -> Iterator[str]:
        """A note on settings of the spectrograms that differ, with the command that makes them equal."""
        ours, theirs = asdict(model.spectrogram.config), asdict(self.model.spectrogram.config)
        differing = [
            f"{name} {ours[name]} instead of {theirs[name]}"
            for name in theirs
            if ours.get(name) != theirs[name]
        ]
        if differing:
            yield f"note: this dataset has {', '.join(differing)}, with which {self.name} was trained; {self._how()}"

    def _labels(self, labels: Mapping[str, Sequence[str]]) -> Iterator[str]:
        """A line for each label: which values keep their embeddings, as `carry_labels` decides."""
        others = self.model.labels.items()
        missing = [
            v
            for n, known in others
            if n not in labels and not isinstance(known, Numbers)
            for v in known
        ]
        for name, values in labels.items():
            theirs = self.model.labels.get(name, missing)
            if not isinstance(values, Numbers) and not keeps(values, theirs):
                theirs = []  # numbers there, words here
            if isinstance(values, Numbers):
                yield f"label {name}: {values.in_words}, {'kept' if keeps(values, theirs) else 'new'}"
                continue
            kept = [value for value in values if value in theirs]
            new = [value for value in values if value not in theirs]
            words = [f"{_some(kept)} kept"] * bool(kept) + [f"{_some(new)} new"] * bool(new)
            yield f"label {name}: {', '.join(words)}"

    def _how(self) -> str:
        return f"`audiovq preprocess … --like {self.path}` makes a dataset that fits"


def sections(card: str, headings: Sequence[str]) -> list[str]:
    """The sections of a model card, Markdown, under these headings of the second level; theirs become the third."""
    parts = re.split(r"^## +(.*)$", card, flags=re.MULTILINE)[1:]
    found = zip(parts[::2], parts[1::2], strict=True)
    return [
        f"### {heading.strip()}\n\n{text.strip()}".strip()
        for heading, text in found
        if heading.strip() in headings
    ]


def _part(config: TrainConfig, part: str) -> Any:
    """A part of the settings by its path."""
    found: Any = config
    for name in part.split("."):
        found = getattr(found, name)
    return found


def _some(values: Sequence[str], most: int = 8) -> str:
    """Values as words, at most `most`."""
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(values[:most]) + more

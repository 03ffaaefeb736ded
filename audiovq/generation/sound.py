"""`Sound`, a generated waveform with its codes, and the choice of the prior that generates it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from audiovq.audio.waveform import Waveform
from audiovq.codec.windows import Encoded
from audiovq.config.errors import AudiovqError
from audiovq.config.settings import SamplingConfig
from audiovq.generation.copies import Nearest
from audiovq.models.autoencoder.gaussian import Gaussian
from audiovq.models.model import Model
from audiovq.models.priors.base import Prior
from audiovq.models.priors.masked import MaskedPrior


@dataclass(frozen=True)
class Sound:
    """A new recording and what it was made from."""

    waveform: Waveform
    """(samples,) at the model's rate."""
    labels: dict[str, str]
    encoded: Encoded
    """Of no quantizers where the model makes no codes."""
    nearest: Nearest | None = None
    """The nearest training clip; None where it was not looked for, or the model lacks their codes."""
    tries: int = 1
    """How often it was drawn: again each time that it was a near copy of a training clip."""


def prior_or_none(model: Model, sampling: SamplingConfig) -> Prior | MaskedPrior | None:
    """What codes are drawn from; None where latents are, from a Gaussian. Raises AudiovqError where the
    model cannot generate."""
    if isinstance(model.autoencoder.bottleneck, Gaussian):
        return None
    if not model.autoencoder.config.quantizes:
        raise AudiovqError(
            "the model makes no codes (bottleneck none), so it cannot generate; train one with"
            " --autoencoder.bottleneck vq, fsq or gaussian"
        )
    return pick_prior(model, sampling, "time")


def pick_prior(
    model: Model, sampling: SamplingConfig, otherwise: Literal["time", "masked"]
) -> Prior | MaskedPrior:
    """The prior that `sampling` asks for; where it leaves the choice, `otherwise`, or what there is.

    Raises AudiovqError where the model does not have it.
    """
    if not model.autoencoder.config.quantizes:
        raise AudiovqError("the model makes no codes, so there are none to be drawn")
    order = otherwise if sampling.order == "auto" else sampling.order
    pair: list[Prior | MaskedPrior | None] = [model.prior, model.masked]
    if order == "masked":
        pair.reverse()
    found = pair[0] or (pair[1] if sampling.order == "auto" else None)
    if found is not None:
        return found
    if model.prior is None:
        raise AudiovqError("the model has no prior yet, so it cannot generate; train it further")
    raise AudiovqError("the model has no masked prior; train one with --masked-share 0.2")

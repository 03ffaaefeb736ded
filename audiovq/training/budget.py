"""The time budget of training: the seconds of each stage under `--max-minutes`."""

from __future__ import annotations

from dataclasses import dataclass

from audiovq.config.settings import TrainConfig

CONTEXT_SHARE = 0.05
"""Share of the limit planned for the context tables."""
CODEC_CONTEXT_SHARE = 0.2
"""The same without a prior, when archives are the model's only purpose; at most CODEC_CONTEXT_SECONDS."""
CODEC_CONTEXT_SECONDS = 300.0
CONTEXT_LATE = 10.0
"""Fitting the context tables is stopped after this multiple of its planned time. Its length is planned in steps,
so that a slow machine takes as many as a fast one; the clock only guards against a hanging run."""


@dataclass(frozen=True)
class TimeBudget:
    """Seconds of each stage of training; all None without a limit.

    The autoencoder has its share of the limit. Context tables and priors share what it leaves, so a stage that ends
    early gives its time to the next ones. Time spent by earlier, stopped runs counts.
    """

    total: float | None
    """Limit of the whole training."""
    has_codes: bool
    """Whether the autoencoder quantizes: without codes there are neither context tables nor priors."""
    autoencoder_share: float
    """Share of the limit, without the context tables' time, for the autoencoder and the vivid decoder; 1: no
    prior is trained."""
    vivid_share: float
    """The vivid decoder's share of the limit, a part of `autoencoder_share`; 0: none is trained."""
    masked_share: float
    """The masked prior's share of the limit; 0: none is trained."""
    masked_first: bool = False
    """Whether new sounds are sampled by the masked prior: then `masked_share` is the autoregressive one's."""

    @classmethod
    def of(cls, config: TrainConfig, masked_first: bool = False) -> TimeBudget:
        """The budget that `config` asks for."""
        has_codes = config.autoencoder.quantizes
        return cls(
            total=60 * config.max_minutes if config.max_minutes else None,
            has_codes=has_codes,
            autoencoder_share=config.autoencoder_share if has_codes else 1.0,
            vivid_share=config.vivid_share if has_codes else 0.0,
            masked_share=config.masked_share,
            masked_first=masked_first,
        )

    @property
    def trains_prior(self) -> bool:
        """Whether a prior is trained."""
        return self.has_codes and self.autoencoder_share < 1

    @property
    def context(self) -> float | None:
        """Time planned for fitting the context tables; None without codes, too."""
        if self.total is None or not self.has_codes:
            return None
        if not self.trains_prior:
            return min(CODEC_CONTEXT_SHARE * self.total, CODEC_CONTEXT_SECONDS)
        return CONTEXT_SHARE * self.total

    @property
    def context_deadline(self) -> float | None:
        """Time after which fitting the context tables is stopped."""
        return None if self.context is None else CONTEXT_LATE * self.context

    @property
    def _networks(self) -> float | None:
        """Time of all stages but the context tables."""
        return None if self.total is None else self.total - (self.context or 0.0)

    @property
    def autoencoder(self) -> float | None:
        """Time of the autoencoder."""
        if self._networks is None or self.vivid is None:
            return None
        return self._networks * self.autoencoder_share - self.vivid

    @property
    def trains_vivid(self) -> bool:
        """Whether a vivid decoder is trained."""
        return self.vivid_share > 0

    @property
    def vivid(self) -> float | None:
        """Time of the vivid decoder: at most half of both decoders'."""
        if self._networks is None:
            return None
        return self._networks * min(self.vivid_share, self.autoencoder_share / 2)

    def masked(self, spent: float) -> float | None:
        """Time of the masked prior, where the autoencoder and vivid decoder took `spent` seconds."""
        return self._both(spent)[1]

    def prior(self, spent: float) -> float | None:
        """Time of the autoregressive prior, where autoencoder and vivid decoder took `spent` seconds."""
        return self._both(spent)[0]

    def _both(self, spent: float) -> tuple[float | None, float | None]:
        """Time of both priors: `masked_share` of the limit, at most half, for the one that new sounds are not sampled
        by."""
        both = self.priors(spent)
        if both is None or self.total is None:
            return None, None
        less = min(self.total * self.masked_share, both / 2)
        return (less, both - less) if self.masked_first and less else (both - less, less)

    def after(self, stage: str) -> float | None:
        """Seconds planned for the stages after one, by its name; None without a limit."""
        if self._networks is None or self.autoencoder is None or self.vivid is None:
            return None
        left = self._networks * (1 - self.autoencoder_share)
        masked = self.masked(self._networks - left) if self.trains_prior else 0.0
        later = {"prior": masked or 0.0, "masked": 0.0}
        if not self.trains_prior:
            left = 0.0
        later["vivid"] = left + (self.context or 0.0)
        later["autoencoder"] = later["vivid"] + self.vivid * self.trains_vivid
        return later[stage]

    def priors(self, spent: float) -> float | None:
        """Time of both priors: what the autoencoder left, but at least half of their share.

        A resumed run may have another limit than the one under which the autoencoder was trained.
        """
        if self._networks is None:
            return None
        return max(self._networks - spent, self._networks * (1 - self.autoencoder_share) / 2)

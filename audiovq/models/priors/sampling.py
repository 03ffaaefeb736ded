"""Sampling from an autoregressive prior: one token after another, for a batch of clips at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audiovq.config.sampling import SamplingConfig, Settled
from audiovq.models.priors.base import Prior
from audiovq.runtime.cuda_graphs import GraphedFunction, Position, read_at, side_stream, write_at
from audiovq.runtime.device import to_device_async
from audiovq.runtime.threads import tuned

FIRST_GRAPHED_COLUMN = 2
"""First column that the CUDA graph samples; the same graph serves all later columns."""
COLDEST = 1e-6
"""Temperatures below are taken as 0: in float32 they sample the most likely token all the same."""
CHECK_COLUMNS = 4
"""On a GPU, test for an early stop every CHECK_COLUMNS columns, as each test synchronizes."""


@torch.inference_mode()
def sample(
    prior: Prior,
    labels: Tensor,
    config: SamplingConfig,
    generator: torch.Generator,
    given: Tensor | None = None,
    shortest: Tensor | int = 1,
    longest: int | None = None,
) -> Tensor:
    """Sample clips: labels (batch, labels) → tokens (batch, 1 + slots × columns), padded with END.

    `given` (batch, any length) fixes the tokens where it is not -1; the others are sampled. `shortest`,
    an int or (batch,), and `longest` (None: max_columns) limit the number of columns. `generator` must
    be on the CPU. The tokens are an inference tensor: clone it to train on it.
    """
    vocabulary, device = prior.vocabulary, labels.device
    columns = vocabulary.max_columns if longest is None else longest
    sampler = _Sampler(prior, labels, config.settled(), generator, given, shortest, columns)
    sampler.sample_token(0, 0)
    with side_stream(device):
        graphed = None
        if device.type == "cuda" and prior.step_at is not None:
            graphed = GraphedFunction(sampler.sample_column, device, warm=1)
        # Larger batches gain from threads what small ones lose: each size has its own number of threads.
        kind = f"sampling {len(labels).bit_length()}"
        for column in tuned(kind, range(columns), enabled=device.type == "cpu"):
            first = 1 + column * vocabulary.slots
            if graphed is not None and column >= FIRST_GRAPHED_COLUMN:
                graphed(torch.tensor([first]))
            else:
                for position in range(first, first + vocabulary.slots):
                    if sampler.num_ended < len(labels):
                        sampler.sample_token(position, position)
            if graphed is not None and column % CHECK_COLUMNS == 0:
                sampler.count_ended()
            if sampler.num_ended == len(labels):
                break
        tokens = sampler.tokens[0]
        ends = tokens[:, 1 :: vocabulary.slots] == vocabulary.end
        used = max(1, int((~ends).sum(dim=1).max())) if columns else 0
    return tokens[:, : 1 + used * vocabulary.slots]


class _Sampler:
    """Tokens sampled so far, caches and random numbers of a batch of clips."""

    def __init__(
        self,
        prior: Prior,
        labels: Tensor,
        config: Settled,
        generator: torch.Generator,
        given: Tensor | None,
        shortest: Tensor | int,
        columns: int,
    ) -> None:
        self.prior, self.config, self.end = prior, config, prior.vocabulary.end
        batch, device, self.slots = len(labels), labels.device, prior.vocabulary.slots
        length = 1 + self.slots * columns
        self.guided = config.guidance != 0 and labels.shape[1] > 0
        if self.guided:  # each clip twice: with its labels, and with null labels
            labels = torch.cat([labels, prior.open_labels(batch)])
        self.tokens = torch.full((len(labels) // batch, batch, length), self.end, device=device)
        self.flat_tokens = self.tokens.flatten(0, 1)
        self.ended = torch.zeros(batch, dtype=torch.bool, device=device)
        self.num_ended = 0
        """Sum of `ended`, as of the last `count_ended`."""
        self.condition = prior.condition(labels)
        self.min_columns = to_device_async(torch.as_tensor(shortest), device)
        self.given = given
        if given is not None:
            self.given = nn.functional.pad(given, (0, length - given.shape[1]), value=-1)
        self.caches = prior.new_caches(len(labels), length)
        # One copy for all positions, as it synchronizes with the GPU.
        self.uniform = torch.rand(length, batch, 1, generator=generator).to(device)
        self.uniform_at = self.uniform.unbind()

    def sample_token(self, template: int, position: Position) -> None:
        """Sample the token at `position` of all clips; `template`: see `Prior.step_at`."""
        static = isinstance(position, int)
        tokens = self.flat_tokens
        if static or self.prior.step_at is None:
            logits = self.prior.step(tokens, template, self.condition, self.caches)
        else:
            logits = self.prior.step_at(tokens, template, position, self.condition, self.caches)
        if self.guided:
            conditional, unconditional = logits.chunk(2)
            guidance = self.config.guidance
            logits = apply_guidance(conditional, unconditional, guidance, self.end)
        first_slot = template > 0 and (template - 1) % self.slots == 0
        if first_slot:  # the only one where END is allowed
            too_short = position <= 1 + self.slots * (self.min_columns - 1)
            logits[:, self.end].masked_fill_(too_short, -torch.inf)
        sampled = sample_categorical(logits, self.config, self._uniform_at(position))
        if self.given is not None:
            given = read_at(self.given, 1, position, 1)[:, 0]
            sampled = torch.where(given < 0, sampled, given)
        if first_slot:
            self.ended.logical_or_(sampled == self.end)
            if static:
                self.count_ended()
        if self.num_ended or not static:
            sampled = torch.where(self.ended, self.end, sampled)
        write_at(self.tokens, 2, position, sampled)

    def _uniform_at(self, position: Position) -> Tensor:
        """Uniform random numbers (batch, 1) for a position."""
        if isinstance(position, int):
            return self.uniform_at[position]
        return read_at(self.uniform, 0, position, 1)[0]

    def sample_column(self, first: Tensor) -> None:
        """Sample the column that begins at position `first` (1,): LIKE_OTHERS or any later one."""
        template = 1 + FIRST_GRAPHED_COLUMN * self.slots
        for slot in range(self.slots):
            self.sample_token(template + slot, first + slot)

    def count_ended(self) -> None:
        """Update `num_ended`, which synchronizes with the GPU."""
        self.num_ended = int(self.ended.sum())


def apply_guidance(conditional: Tensor, unconditional: Tensor, guidance: float, end: int) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022) on logits (batch, size) of all tokens but END.

    END keeps its conditional probability: guided towards a label, clips would hardly ever end.
    """
    guided = torch.where(
        conditional.isinf(), conditional, conditional + guidance * (conditional - unconditional)
    )
    guided[:, end] = -torch.inf
    codes = conditional.clone()
    codes[:, end] = -torch.inf
    guided[:, end] = conditional[:, end] + guided.logsumexp(dim=1) - codes.logsumexp(dim=1)
    return guided


def sample_categorical(logits: Tensor, config: Settled, uniform: Tensor) -> Tensor:
    """Sample tokens (batch,) from logits (batch, size), after temperature, top-k and top-p.

    Inverts the CDF at `uniform` (batch, 1), float32 in [0, 1).
    """
    if config.temperature < COLDEST:
        return logits.argmax(dim=1)
    if logits.is_mps:  # which has no float64
        return sample_categorical(logits.cpu(), config, uniform.cpu()).to(logits.device)
    # From the largest down, so that none exceeds the range of a float.
    logits = (logits - logits.amax(dim=1, keepdim=True)) / config.temperature
    if config.top_k or config.top_p < 1:
        logits = _top_k_top_p(logits, config)
    # A GPU's cumsum adds in no fixed order: only in float64 does it never decrease at tokens of
    # probability 0.
    dtype = torch.float64 if logits.is_cuda else torch.float32
    cdf = logits.softmax(dim=1).cumsum(dim=1, dtype=dtype)
    # Scaled by the total, which is not exactly 1: otherwise a last token of probability 0 could be
    # sampled. Even for the largest uniform number, 1 - 2⁻²⁴, the product rounds to less than the total.
    target = uniform * cdf.narrow(1, -1, 1)
    return torch.searchsorted(cdf, target, right=True).squeeze(1)


def _top_k_top_p(logits: Tensor, config: SamplingConfig) -> Tensor:
    """Logits (batch, size) with -inf for tokens outside the `top_k`, or outside the `top_p` nucleus."""
    values, order = logits.sort(dim=1, descending=True, stable=True)
    if config.top_k:
        values[:, min(config.top_k, values.shape[1]) :] = -torch.inf
    if config.top_p < 1:
        probabilities = values.softmax(dim=1)
        before = probabilities.cumsum(dim=1) - probabilities  # of all likelier tokens
        excluded = before >= config.top_p
        excluded[:, 0] = False  # the likeliest stays, whatever float32 makes of a tiny top_p
        values = values.masked_fill(excluded, -torch.inf)
    return torch.empty_like(values).scatter_(1, order, values)

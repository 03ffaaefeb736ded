"""Drawing from a prior in time order: a token after the other, for a batch of clips at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audiovq.config import SamplingConfig
from audiovq.graphs import Recorded, own_stream, sent
from audiovq.places import Place, read, write
from audiovq.prior import Prior

LIKE_OTHERS = 2
"""From this column on all are drawn alike."""
COLDEST = 1e-6
"""Temperatures below are 0: a float32 tells the likeliest from all others no better."""
CHECK_COLUMNS = 4
"""Once in so many it is seen whether all clips have ended, where that makes a GPU wait."""


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
    """labels (batch, labels) → tokens (batch, 1 + slots × columns), END from a clip's end on.

    Where `given` (batch, any length) is no -1, it stands as it is, and what comes after is drawn to go
    with it. No clip has fewer columns than `shortest`, one number or (batch,), or more than `longest`;
    None: max_columns. What was computed is cached: each token costs one token. `generator` is one of
    the CPU. Tokens are an inference tensor: clone it to train on it.
    """
    vocabulary, device = prior.vocabulary, labels.device
    columns = vocabulary.max_columns if longest is None else longest
    drawing = _Drawing(prior, labels, config, generator, given, shortest, columns)
    drawing.token(0, 0)
    with own_stream(device):
        recorded = None
        if device.type == "cuda" and prior.step_at is not None:
            recorded = Recorded(drawing.column, device, warm=1)
        for column in range(columns):
            first = 1 + column * vocabulary.slots
            if recorded is not None and column >= LIKE_OTHERS:
                recorded(torch.tensor([first]))
            else:
                for place in range(first, first + vocabulary.slots):
                    if drawing.num_ended < len(labels):
                        drawing.token(place, place)
            if recorded is not None and column % CHECK_COLUMNS == 0:
                drawing.count_ended()
            if drawing.num_ended == len(labels):
                break
        tokens = drawing.tokens[0]
        ends = tokens[:, 1 :: vocabulary.slots] == vocabulary.end
        used = max(1, int((~ends).sum(dim=1).max())) if columns else 0
    return tokens[:, : 1 + used * vocabulary.slots]


class _Drawing:
    """A batch of clips, as far as they are drawn."""

    def __init__(
        self,
        prior: Prior,
        labels: Tensor,
        config: SamplingConfig,
        generator: torch.Generator,
        given: Tensor | None,
        shortest: Tensor | int,
        columns: int,
    ) -> None:
        self.prior, self.config, self.end = prior, config, prior.vocabulary.end
        batch, device, self.slots = len(labels), labels.device, prior.vocabulary.slots
        length = 1 + self.slots * columns
        self.guides = config.guidance != 0 and labels.shape[1] > 0
        if self.guides:  # each clip with the labels asked for, and with none
            labels = torch.cat([labels, prior.open_labels(batch)])
        self.tokens = torch.full((len(labels) // batch, batch, length), self.end, device=device)
        self.seen = self.tokens.flatten(0, 1)
        self.ended = torch.zeros(batch, dtype=torch.bool, device=device)
        self.num_ended = 0
        """As far as Python knows."""
        self.condition = prior.condition(labels)
        self.least = sent(torch.as_tensor(shortest), device)
        self.given = given
        if given is not None:
            self.given = nn.functional.pad(given, (0, length - given.shape[1]), value=-1)
        self.caches = prior.new_caches(len(labels), length)
        # Once: a GPU waits for it.
        self.uniform = torch.rand(length, batch, 1, generator=generator).to(device)
        self.by_place = self.uniform.unbind()

    def token(self, place: int, here: Place) -> None:
        """Draw the token `here`, at a place like `place`, of all clips."""
        known = isinstance(here, int)
        if known or self.prior.step_at is None:
            logits = self.prior.step(self.seen, place, self.condition, self.caches)
        else:
            logits = self.prior.step_at(self.seen, place, here, self.condition, self.caches)
        if self.guides:
            asked, anything = logits.chunk(2)
            logits = guided(asked, anything, self.config.guidance, self.end)
        begins = place > 0 and (place - 1) % self.slots == 0
        if begins:  # a column, or an end
            too_soon = here <= 1 + self.slots * (self.least - 1)
            logits[:, self.end].masked_fill_(too_soon, -torch.inf)
        drawn = draw(logits, self.config, self._uniform(here))
        if self.given is not None:
            as_given = read(self.given, 1, here, 1)[:, 0]
            drawn = torch.where(as_given < 0, drawn, as_given)
        if begins:
            self.ended.logical_or_(drawn == self.end)
            if known:
                self.count_ended()
        if self.num_ended or not known:
            drawn = torch.where(self.ended, self.end, drawn)
        write(self.tokens, 2, here, drawn)

    def _uniform(self, here: Place) -> Tensor:
        """(batch, 1) random numbers of a place."""
        return self.by_place[here] if isinstance(here, int) else read(self.uniform, 0, here, 1)[0]

    def column(self, first: Tensor) -> None:
        """Draw a column that begins at `first` (1,): any but the first two."""
        like = 1 + LIKE_OTHERS * self.slots
        for slot in range(self.slots):
            self.token(like + slot, first + slot)

    def count_ended(self) -> None:
        """Ask how many clips have ended: a GPU is waited for."""
        self.num_ended = int(self.ended.sum())


def guided(asked: Tensor, anything: Tensor, guidance: float, end: int) -> Tensor:
    """Logits (batch, size) with the labels asked for, and with none → led further from the second to the
    first (Ho and Salimans 2022), but for END, which keeps its probability.

    Of what sounds more like a label, guidance makes more, and so clips would not end.
    """
    led = torch.where(asked.isinf(), asked, asked + guidance * (asked - anything))
    led[:, end] = -torch.inf
    codes = asked.clone()
    codes[:, end] = -torch.inf
    led[:, end] = asked[:, end] + led.logsumexp(dim=1) - codes.logsumexp(dim=1)
    return led


def draw(logits: Tensor, config: SamplingConfig, uniform: Tensor) -> Tensor:
    """logits (batch, size), uniform (batch, 1) in [0, 1), float32 → (batch,) tokens, by the inverse of
    the CDF."""
    if config.temperature < COLDEST:
        return logits.argmax(dim=1)
    if logits.is_mps:  # which has no float64
        return draw(logits.cpu(), config, uniform.cpu()).to(logits.device)
    # From the largest down, so that none grows beyond what a float holds.
    logits = (logits - logits.amax(dim=1, keepdim=True)) / config.temperature
    if config.top_k or config.top_p < 1:
        logits = _cut(logits, config)
    # A GPU adds up in no order: only in float64 does a sum never fall where nothing is added.
    exact = torch.float64 if logits.is_cuda else torch.float32
    cumulative = logits.softmax(dim=1).cumsum(dim=1, dtype=exact)
    # Of the total, which is not just 1: what has no probability may stand at the end. Even the largest
    # uniform number, 1 - 2⁻²⁴, times it is rounded to less than it.
    place = uniform * cumulative.narrow(1, -1, 1)
    return torch.searchsorted(cumulative, place, right=True).squeeze(1)


def _cut(logits: Tensor, config: SamplingConfig) -> Tensor:
    """(batch, size) → the same, -inf for what is none of the `top_k`, or lies beyond `top_p`."""
    values, order = logits.sort(dim=1, descending=True, stable=True)
    if config.top_k:
        values[:, min(config.top_k, values.shape[1]) :] = -torch.inf
    if config.top_p < 1:
        probabilities = values.softmax(dim=1)
        beyond = probabilities.cumsum(dim=1) - probabilities >= config.top_p
        beyond[:, 0] = False  # whatever a float32 makes of a tiny top_p
        values = values.masked_fill(beyond, -torch.inf)
    return torch.empty_like(values).scatter_(1, order, values)

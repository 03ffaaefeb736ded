"""A masked prior: any codes of a clip from all its others, earlier and later, higher and lower.

It learns to fill random masks and is sampled in a few parallel steps (Chang et al. 2022, MaskGIT; over
codes of sound: Garcia et al. 2023, VampNet). So it meets a future, which a prior in time order cannot,
and paints over parts of a grid (Bazin et al. 2020, NOTONO), or a whole one in eight steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from audiovq import ranks
from audiovq.config import MaskedConfig, SamplingConfig
from audiovq.prior import Layer, Vocabulary, draw, hide_labels, initialize, rms_norm

CHOICE = 4.0
"""How much chance has in choosing which codes stay, in nats at the first step; none at the last."""
CROPPED = 0.2
"""How often in training a clip's beginning is cut off, and how often its end."""
HEAD_SCALE = 0.1
"""Of the heads' first weights, relative to the embeddings."""
REGIONS = (0.7, 0.9)
"""Of masks in training, the share that may lie anywhere, and that of those and spans of time; the rest
lie in a band of rows."""


@dataclass(frozen=True)
class Canvas:
    """Clips of unequal lengths with holes, and what is known about them."""

    codes: Tensor
    """(batch, quantizers, rows, columns); what stands where `hidden` is not looked at."""
    hidden: Tensor
    """The same shape, bool: the holes."""
    num_columns: Tensor
    """(batch,) at most the vocabulary's; columns beyond are padding."""
    levels: Tensor
    """(batch,)"""
    labels: Tensor
    """(batch, labels), one past the last value where it is left open."""
    whole: Tensor
    """(batch, 2) bool: whether the clip begins with the first column, and ends with its last one;
    else it was cut from something longer."""

    @property
    def inside(self) -> Tensor:
        """(batch, columns) bool: what is no padding."""
        columns = torch.arange(self.codes.shape[3], device=self.codes.device)
        return columns < self.num_columns[:, None]

    def to(self, device: torch.device) -> Canvas:
        """The same on `device`."""
        return Canvas(*(getattr(self, field.name).to(device) for field in fields(self)))


class Block(nn.Module):
    """Attention both ways over columns, then convolution over the cells beside each other.

    Each column is one token to the attention, which is why it is quick, and each cell has features of
    its own, without which it would not know its neighbours well enough.
    """

    def __init__(self, config: MaskedConfig, slots: int) -> None:
        super().__init__()
        cell = config.cell
        self.gather = nn.Linear(slots * cell, config.dim)
        self.attention = Layer(config)
        self.spread = nn.Linear(config.dim, slots * cell)
        self.around = nn.Conv2d(cell, cell, 3, padding=1)
        self.out = nn.Linear(cell, cell)

    def forward(
        self, x: Tensor, cells: Tensor, condition: Tensor, inside: Tensor
    ) -> tuple[Tensor, Tensor]:
        """x (batch, columns, dim), cells (batch, columns, slots, cell), condition (batch, dim), inside
        (batch, columns) bool → new x and cells, 0 where there is padding."""
        x = x + self.gather(rms_norm(cells).flatten(2))
        x = self.attention(x, self.attention.told(condition), inside=inside[:, None, None])
        cells = cells + self.spread(rms_norm(x)).view(cells.shape)
        cells = cells * inside[:, :, None, None]
        mixed = self.around(rms_norm(cells).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        cells = cells + self.out(nn.functional.gelu(mixed))
        return x, cells * inside[:, :, None, None]


class MaskedPrior(nn.Module):
    """p(hidden codes | the others, level, length, labels), each for itself.

    The number of columns is drawn from the labels, the level from both.
    """

    def __init__(
        self, config: MaskedConfig, vocabulary: Vocabulary, label_sizes: tuple[int, ...]
    ) -> None:
        """`label_sizes`: how many values each label has; one more stands for "left open"."""
        super().__init__()
        self.config = config
        self.vocabulary = vocabulary
        self.label_sizes = label_sizes
        dim, cell, columns = config.dim, config.cell, vocabulary.max_columns
        self.code_embedding = nn.Embedding(vocabulary.end + 1, cell)  # the last stands for holes
        self.slot_embedding = nn.Embedding(vocabulary.slots, cell)
        self.begin_embedding = nn.Embedding(columns + 1, dim)
        self.end_embedding = nn.Embedding(columns + 1, dim)
        self.level_embedding = nn.Embedding(vocabulary.num_levels, dim)
        self.label_embeddings = nn.ModuleList(nn.Embedding(size + 1, dim) for size in label_sizes)
        blocks = [Block(config, vocabulary.slots) for _ in range(config.layers)]
        self.blocks = nn.ModuleList(blocks)
        self.heads = nn.ModuleList(
            nn.Linear(cell, vocabulary.codebook_size) for _ in range(vocabulary.num_quantizers)
        )
        self.length_head = _head(dim, columns)
        self.level_head = _head(dim, vocabulary.num_levels)
        self.apply(initialize)
        # What is normalized at once must not drown in what is added to it.
        nn.init.normal_(self.code_embedding.weight)
        nn.init.normal_(self.slot_embedding.weight)
        known = self.begin_embedding, self.end_embedding, self.level_embedding
        for embedding in (*known, *self.label_embeddings):
            nn.init.normal_(torch.as_tensor(embedding.weight), std=0.5)
        for block in blocks:
            for linear in (block.attention.modulation, block.spread, block.out):
                nn.init.zeros_(linear.weight)

    @torch.no_grad()
    def start_from(self, vectors: Tensor) -> None:
        """Let codes that stand for like things begin alike: `vectors` (quantizers, codebook_size, dim).

        Their principal components, as many as a cell has room for, are the first embeddings, and the
        first weights of the heads. Holes begin as nothing.
        """
        cell = self.config.cell
        centred = vectors - vectors.mean(dim=1, keepdim=True)
        directions = torch.linalg.svd(centred.flatten(0, 1), full_matrices=False).Vh[:cell]
        parts = centred @ directions.T
        parts = nn.functional.pad(parts / parts.std(), (0, cell - parts.shape[2]))
        self.code_embedding.weight[: self.vocabulary.end] = parts.flatten(0, 1)
        self.code_embedding.weight[self.vocabulary.end] = 0
        for head, part in zip(self.heads, parts, strict=True):
            torch.as_tensor(head.weight).copy_(HEAD_SCALE * part)

    def forward(self, canvas: Canvas) -> Tensor:
        """→ logits (batch, quantizers, rows, columns, codebook_size), of what is hidden and all else.

        They depend on no code that is hidden, and on no padding.
        """
        vocabulary, inside = self.vocabulary, canvas.inside
        _, quantizers, rows, _ = canvas.codes.shape
        offsets = torch.arange(quantizers, device=inside.device) * vocabulary.codebook_size
        unseen = canvas.hidden | ~inside[:, None, None]
        seen = (canvas.codes + offsets[:, None, None]).masked_fill(unseen, vocabulary.end)
        cells = self.code_embedding(seen.permute(0, 3, 2, 1).flatten(2))
        cells = (cells + self.slot_embedding.weight) * inside[:, :, None, None]
        condition = self.condition(canvas.labels) + self.level_embedding(canvas.levels)
        x = condition[:, None] + self._places(canvas)
        for block in self.blocks:
            x, cells = block(x, cells, condition, inside)
        out = rms_norm(cells).unflatten(2, (rows, quantizers))
        logits = [head(out[:, :, :, q]).float() for q, head in enumerate(self.heads)]
        return torch.stack(logits, dim=1).transpose(2, 3)

    def condition(self, labels: Tensor) -> Tensor:
        """labels (batch, labels) → (batch, dim)."""
        condition = self.level_embedding.weight.new_zeros(len(labels), self.config.dim)
        for i, embedding in enumerate(self.label_embeddings):
            condition = condition + embedding(labels[:, i])
        return condition

    def loss(self, canvas: Canvas) -> tuple[Tensor, Tensor, Tensor]:
        """Nats: (per hidden code, per clip's length, per clip's level), each a mean."""
        hidden = canvas.hidden & canvas.inside[:, None, None]
        nats = nn.functional.cross_entropy(
            self(canvas)[hidden], canvas.codes[hidden], reduction="none"
        )
        entire = canvas.whole.all(dim=1)  # how long the others are, nobody knows
        lengths, levels = (
            nn.functional.cross_entropy(logits.float(), target, reduction="none")
            for logits, target in (
                (self._lengths(canvas.labels), canvas.num_columns - 1),
                (self._levels(canvas.labels, canvas.num_columns), canvas.levels),
            )
        )
        count = ranks.mean(entire.sum().float()).clamp(min=1 / ranks.world())
        sums = (lengths * entire).sum(), (levels * entire).sum()
        return ranks.part_of_mean(nats), sums[0] / count, sums[1] / count

    def draw_sizes(self, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """labels (batch, labels) → (batch,) columns and (batch,) levels, as training clips have them."""
        uniform = torch.rand(len(labels), 2, 1, generator=generator).to(labels.device)
        plain = SamplingConfig(temperature=1.0)
        num_columns = 1 + draw(self._lengths(labels).float(), plain, uniform[:, 0])
        levels = draw(self._levels(labels, num_columns).float(), plain, uniform[:, 1])
        return num_columns, levels

    def hide_labels(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Leave labels open at random: all of a clip's, or single ones."""
        return hide_labels(labels, self.label_sizes, self.config.label_dropout, generator)

    def _lengths(self, labels: Tensor) -> Tensor:
        logits: Tensor = self.length_head(self.condition(labels))
        return logits

    def _levels(self, labels: Tensor, num_columns: Tensor) -> Tensor:
        known = self.condition(labels) + self.end_embedding(num_columns - 1)
        logits: Tensor = self.level_head(known)
        return logits

    def _places(self, canvas: Canvas) -> Tensor:
        """(batch, columns, dim): how far from the beginning and the end, where they are known."""
        columns = torch.arange(canvas.codes.shape[3], device=canvas.codes.device)
        unknown = self.vocabulary.max_columns
        begin = torch.where(canvas.whole[:, :1], columns, unknown)
        left = (canvas.num_columns[:, None] - 1 - columns).clamp(min=0)
        end = torch.where(canvas.whole[:, 1:], left, unknown)
        both: Tensor = self.begin_embedding(begin) + self.end_embedding(end)
        return both


def _head(dim: int, size: int) -> nn.Sequential:
    """(batch, dim) → (batch, size)."""
    return nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, size))


def masked_at_random(
    codes: Tensor, num_columns: Tensor, levels: Tensor, labels: Tensor, generator: torch.Generator
) -> Canvas:
    """Clips (batch, quantizers, rows, columns) with holes to learn from, some of them cut short.

    The share that is hidden is cos(π u / 2), u even from 0 to 1, of a region: all of it, a span of
    time, or a band of rows. Everything on the CPU, `generator` too.
    """
    batch, _, rows, columns = codes.shape

    def uniform(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=generator)

    cut, keep = uniform(2) < CROPPED, uniform(2)
    begin = ((num_columns - 1) * cut[:, 0] * keep[:, 0]).long()
    end = num_columns - ((num_columns - 1 - begin) * cut[:, 1] * keep[:, 1]).long()
    places = (torch.arange(columns) + begin[:, None]).clamp(max=columns - 1)
    codes = codes.gather(3, places[:, None, None].expand_as(codes))
    kind = uniform(1, 1, 1)
    first, last = (uniform(2) * (end - begin)[:, None]).sort(dim=1).values.T
    low, high = (uniform(2) * rows).sort(dim=1).values.T
    column, row = torch.arange(columns), torch.arange(rows)
    span = (column >= first.floor()[:, None]) & (column <= last[:, None])
    band = (row >= low.floor()[:, None]) & (row <= high[:, None])
    region = (kind < REGIONS[0]) | torch.where(
        kind < REGIONS[1], span[:, None, None], band[:, None, :, None]
    )
    share = torch.cos(uniform(1, 1, 1) * math.pi / 2)
    hidden = (uniform(*codes.shape[1:]) < share) & region
    return Canvas(codes, hidden, end - begin, levels, labels, ~cut)


@torch.no_grad()
def sample_masked(
    prior: MaskedPrior,
    canvas: Canvas,
    config: SamplingConfig,
    generator: torch.Generator,
) -> Tensor:
    """The canvas's codes, its holes filled; all others as they are.

    In each of `config.steps` all holes are drawn at once, and the likeliest stay, so that the share
    that is still hidden goes as the cosine (Chang et al. 2022, section 3.2). At temperature 0 chance
    has no say. What a clip gets does not depend on those after it. `generator` is one of the CPU.
    """
    hidden = canvas.hidden & canvas.inside[:, None, None]
    guided = config.guidance != 0 and canvas.labels.shape[1] > 0
    batch, shape, device = len(hidden), hidden.shape[1:], hidden.device
    noise = torch.rand(batch, config.steps, 2, hidden[0].numel(), generator=generator).to(device)
    codes, total = canvas.codes, hidden.flatten(1).sum(dim=1)
    for step in range(config.steps):
        logits = _logits(prior, canvas, codes, hidden, config.guidance if guided else 0.0)
        uniform, chance = noise[:, step].unflatten(2, shape).unbind(dim=1)
        drawn = draw(logits, config, uniform[hidden][:, None])
        sure = logits.log_softmax(dim=1).gather(1, drawn[:, None])[:, 0]
        left = 1 - (step + 1) / config.steps
        if config.temperature > 0:
            sure = sure - CHOICE * left * (-chance[hidden].clamp(min=1e-9).log()).log()
        codes = codes.masked_scatter(hidden, drawn)
        surest = torch.full(hidden.shape, -torch.inf, device=device).masked_scatter(hidden, sure)
        rank = surest.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        stay = (total * math.cos(math.pi / 2 * (1 - left))).long()
        fixed = hidden.flatten(1).sum(dim=1) - stay
        hidden = hidden & (rank >= fixed[:, None]).unflatten(1, shape)
    return codes


def _logits(
    prior: MaskedPrior, canvas: Canvas, codes: Tensor, hidden: Tensor, guidance: float
) -> Tensor:
    """(holes, codebook_size) in float32, led away from any label towards those asked for."""
    known = canvas.num_columns, canvas.levels
    logits: Tensor = prior(Canvas(codes, hidden, *known, canvas.labels, canvas.whole))[hidden]
    if guidance:
        opened = canvas.labels.new_tensor(prior.label_sizes).expand_as(canvas.labels)
        anything = prior(Canvas(codes, hidden, *known, opened, canvas.whole))[hidden]
        logits = logits + guidance * (logits - anything)
    return logits

"""A masked prior: any codes of a clip from all its others, earlier and later, higher and lower.

It learns to fill random masks and is sampled in a few parallel steps (Chang et al. 2022, MaskGIT; over
codes of sound: Garcia et al. 2023, VampNet). So it meets a future, which a prior in time order cannot,
and paints over parts of a grid (Bazin et al. 2020, NOTONO), or a whole one in a few steps.

What is drawn at once must not depend on each other, and codes of a column do, most of all. So attention
goes over columns, and a column's codes are drawn from low to high, each knowing those below it
(`cells.py`; Li et al. 2024, "Autoregressive Image Generation without Vector Quantization", put such
a network on masked attention too). Columns that are drawn at once lie apart, with others in between.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from audiovq import ranks
from audiovq.attention import Layer, all_told, initialize
from audiovq.canvas import Canvas, turns
from audiovq.cells import Cells, forgotten
from audiovq.config import MaskedConfig, SamplingConfig
from audiovq.prior import Vocabulary, hide_labels
from audiovq.sampling import draw
from audiovq.transformer import Transformer

MOST_BELOW = 15
"""So many codes of its own column, just below it, a code sees by itself."""
AROUND = (-2, 0), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, -1), (1, 0), (1, 1), (2, 0)
"""Columns and slots to the other codes that it sees by itself, where they are known."""


class MaskedPrior(nn.Module):
    """p(hidden codes of a column | all that is not hidden, level, length, labels).

    The number of columns is drawn from the labels, the level from both.
    """

    _offsets: Tensor
    """(quantizers, 1, 1) what tokens are beyond codes."""

    def __init__(
        self, config: MaskedConfig, vocabulary: Vocabulary, label_sizes: tuple[int, ...]
    ) -> None:
        """`label_sizes`: how many values each label has; one more stands for "left open"."""
        super().__init__()
        self.config = config
        self.vocabulary = vocabulary
        self.label_sizes = label_sizes
        self.longest_complete = (True, True)
        """Whether training clips of the most columns begin and end as their recordings do, mostly; shorter
        ones are taken to."""
        dim, columns, slots = config.dim, vocabulary.max_columns, vocabulary.slots
        self.hole, self.nothing = vocabulary.end, vocabulary.end + 1
        self.below = min(max(1, slots - 1), MOST_BELOW)
        self.cells = Cells(dim, config.cell, vocabulary.end + 2, slots, len(AROUND), self.below)
        offsets = torch.arange(0, vocabulary.end, vocabulary.codebook_size)
        self.register_buffer("_offsets", offsets[:, None, None], persistent=False)
        self.begin_embedding = nn.Embedding(columns + 1, dim)
        self.end_embedding = nn.Embedding(columns + 1, dim)
        self.level_embedding = nn.Embedding(vocabulary.num_levels, dim)
        self.label_embeddings = nn.ModuleList(nn.Embedding(size + 1, dim) for size in label_sizes)
        layers = [Layer(config) for _ in range(config.layers)]
        self.layers = nn.ModuleList(layers)
        self.heads = nn.ModuleList(
            nn.Linear(config.cell, vocabulary.codebook_size)
            for _ in range(vocabulary.num_quantizers)
        )
        self.length_head = _head(dim, columns)
        self.level_head = _head(dim, vocabulary.num_levels)
        self.apply(initialize)
        for layer in layers:
            layer.start()
        self.cells.start()

    def can_start_from(self, prior: Transformer) -> bool:
        """Whether all sizes are the same, so that `start_from` can."""
        own, theirs = self.config, prior.config
        return prior.group == self.vocabulary.slots and all(
            getattr(own, name) == getattr(theirs, name)
            for name in ("dim", "cell", "layers", "heads")
        )

    @torch.no_grad()
    def start_from(self, prior: Transformer) -> None:
        """Begin with what a prior in time order, of the same sizes, has learnt of the same codes: which
        go together, and how labels are heard. What it does not know, the future, begins as nothing."""
        size, slots = self.vocabulary.codebook_size, self.vocabulary.slots
        for own, theirs in (
            (self.layers, prior.layers),
            (self.label_embeddings, prior.label_embeddings),
            (self.level_embedding, prior.level_embedding),
        ):
            own.load_state_dict(theirs.state_dict())
        for quantizer, head in enumerate(self.heads):
            part = slice(quantizer * size, (quantizer + 1) * size)
            torch.as_tensor(head.weight).copy_(prior.head.weight[part])
            torch.as_tensor(head.bias).copy_(prior.head.bias[part])
        places = prior.place_embedding.weight[1:-1]
        self.begin_embedding.weight[: len(places)] = places
        lags = [slots * -column - slot for column, slot in AROUND]
        known = {
            place: prior.lags.index(lag) for place, lag in enumerate(lags) if lag in prior.lags
        }
        self.cells.start_from(prior.cells, self.vocabulary.end, known)

    def forward(self, canvas: Canvas) -> Tensor:
        """→ logits (batch, quantizers, rows, columns, codebook_size), of what is hidden and all else.

        Those of a code depend on no other that is hidden but those below it in its own column, which
        are taken as they stand in `canvas.codes`, and on no padding.
        """
        return self._logits(canvas, self.tokens(canvas))

    def context(self, canvas: Canvas, columns: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What all that is not hidden tells each cell of some `columns`, bool (batch, columns), and
        what their clips tell them: (as many as are asked for, slots, cell), (as many, cell) each.

        Columns attend to those that tell something and to each other.
        """
        inside, hidden = canvas.inside, self.in_columns(canvas.hidden)
        seen, condition = self._seen(canvas), self._conditions(canvas)
        # Those asked for, then those that tell something. Holes that are left for later tell nothing.
        telling = inside & ~hidden.all(dim=2)
        used = columns | telling
        order = torch.where(columns, 2, telling.int()).argsort(dim=1, descending=True, stable=True)
        order = order[:, : _most(used)]
        first = order[:, : _most(columns)]
        heard = (used & inside).gather(1, order)[:, None, None]
        tokens = seen.gather(1, order[:, :, None].expand(-1, -1, seen.shape[2]))
        x = self.cells.columns(tokens) + self._places(canvas, order) + condition[:, None]
        asked = [None] * (len(self.layers) - 1) + [first.shape[1]]
        told = all_told(self.layers, condition)
        for layer, layer_told, count in zip(self.layers, told, asked, strict=True):
            x = layer(x, layer_told, inside=heard, asked=count)
        x = x[columns.gather(1, first)]
        clip = columns.nonzero()[:, 0]
        cells_told = tuple(part[clip] for part in self.cells.told(condition))
        return self.cells.context(x, self._around(seen)[columns]), cells_told

    def logits(
        self, context: Tensor, below: Tensor, told: tuple[Tensor, ...], quantizer: int
    ) -> Tensor:
        """context (…, cell), below (…, tokens), told (…, cell) each → logits (…, codebook_size) of codes
        of one quantizer."""
        logits: Tensor = self.heads[quantizer](self.cells(context, below, told))
        return logits.float()

    def in_columns(self, grid: Tensor) -> Tensor:
        """(batch, quantizers, rows, columns) → (batch, columns, slots), from low to high."""
        return grid.permute(0, 3, 2, 1).flatten(2)

    def tokens(self, canvas: Canvas) -> Tensor:
        """The canvas's codes → (batch, columns, slots), nothing where there is padding."""
        tokens = self.in_columns(canvas.codes + self._offsets)
        return tokens.masked_fill(~canvas.inside[:, :, None], self.nothing)

    def codes(self, tokens: Tensor, canvas: Canvas) -> Tensor:
        """The inverse of `tokens`; padding is as it was in the canvas."""
        vocabulary = self.vocabulary
        grid = tokens.unflatten(2, (vocabulary.rows, vocabulary.num_quantizers))
        codes = grid.permute(0, 3, 2, 1) - self._offsets
        return torch.where(canvas.inside[:, None, None], codes, canvas.codes)

    def _logits(self, canvas: Canvas, tokens: Tensor) -> Tensor:
        """`forward`, where of `tokens` (batch, columns, slots) codes are told those below them.

        Everything of every shape is asked for, and so no number of what.
        """
        vocabulary, inside = self.vocabulary, canvas.inside
        seen = self._seen(canvas)
        condition = self._conditions(canvas)
        columns = torch.arange(inside.shape[1], device=inside.device).expand_as(inside)
        x = self.cells.columns(seen) + self._places(canvas, columns) + condition[:, None]
        for layer, told in zip(self.layers, all_told(self.layers, condition), strict=True):
            x = layer(x, told, inside=inside[:, None, None])
        context = self.cells.context(x, self._around(seen))
        told = tuple(part[:, None, None] for part in self.cells.told(condition))
        features = self.cells(context, self._below(tokens), told)
        cells = features.unflatten(2, (vocabulary.rows, vocabulary.num_quantizers))
        logits = [head(cells[:, :, :, q]).float() for q, head in enumerate(self.heads)]
        return torch.stack(logits, dim=1).transpose(2, 3)

    def _below(self, tokens: Tensor) -> Tensor:
        """(…, slots) tokens → (…, slots, below), those just below each."""
        padded = nn.functional.pad(tokens, (self.below, 0), value=self.nothing)
        return padded[..., :-1].unfold(-1, self.below, 1)

    def _around(self, tokens: Tensor) -> Tensor:
        """(batch, columns, slots) tokens → (batch, columns, slots, around)."""
        _, columns, slots = tokens.shape
        padded = nn.functional.pad(tokens, (1, 1, 2, 2), value=self.nothing)
        parts = [
            padded[:, 2 + aside : 2 + aside + columns, 1 + above : 1 + above + slots]
            for aside, above in AROUND
        ]
        return torch.stack(parts, dim=3)

    def _seen(self, canvas: Canvas) -> Tensor:
        """The canvas's tokens, (batch, columns, slots), with holes where they are hidden."""
        hidden = self.in_columns(canvas.hidden) & canvas.inside[:, :, None]
        return self.tokens(canvas).masked_fill(hidden, self.hole)

    def _conditions(self, canvas: Canvas) -> Tensor:
        """(batch, dim) what is known of the clips."""
        levels: Tensor = self.level_embedding(canvas.levels)
        return self.condition(canvas.labels) + levels

    def condition(self, labels: Tensor) -> Tensor:
        """labels (batch, labels) → (batch, dim)."""
        condition = self.level_embedding.weight.new_zeros(len(labels), self.config.dim)
        for i, embedding in enumerate(self.label_embeddings):
            condition = condition + embedding(labels[:, i])
        return condition

    def loss(self, canvas: Canvas) -> tuple[Tensor, Tensor, Tensor]:
        """Nats: (per hidden code, per clip's length, per clip's level), each a mean."""
        hidden = canvas.hidden & canvas.inside[:, None, None]
        tokens = self.tokens(canvas)
        if self.training:
            tokens = forgotten(tokens, self.nothing)
        if hidden.is_cuda:  # which would be waited for if what is hidden were picked out
            logits = self._logits(canvas, tokens).flatten(0, 3)
            nats = nn.functional.cross_entropy(logits, canvas.codes.flatten(), reduction="none")
            mean = ranks.part_of_mean(nats, hidden.flatten().float())
        else:
            mean = ranks.part_of_mean(self._nats(canvas, tokens, self.in_columns(hidden)))
        entire = self.entire(canvas)
        lengths, levels = (
            nn.functional.cross_entropy(logits.float(), target, reduction="none")
            for logits, target in (
                (self._lengths(canvas.labels), canvas.num_columns - 1),
                (self._levels(canvas.labels, canvas.num_columns), canvas.levels),
            )
        )
        count = ranks.mean(entire.sum().float()).clamp(min=1 / ranks.world())
        sums = (lengths * entire).sum(), (levels * entire).sum()
        return mean, sums[0] / count, sums[1] / count

    def entire(self, canvas: Canvas) -> Tensor:
        """(batch,) bool: which clips' lengths are known, those of the most columns being as long as any; how
        long the others are, nobody knows."""
        return canvas.whole.all(dim=1) | (canvas.num_columns == self.vocabulary.max_columns)

    def ends(self, num_columns: Tensor) -> Tensor:
        """(batch,) columns → (batch, 2) bool: whether new sounds so long begin and end, as training clips do,
        or are cut from something longer."""
        complete = torch.tensor(self.longest_complete, device=num_columns.device)
        return complete | (num_columns < self.vocabulary.max_columns)[:, None]

    def _nats(self, canvas: Canvas, tokens: Tensor, cells: Tensor) -> Tensor:
        """(codes,) what each costs in some `cells`, bool (batch, columns, slots)."""
        columns = cells.any(dim=2)
        context, told = self.context(canvas, columns)
        context, column = context[cells[columns]], cells[columns].nonzero()[:, 0]
        told = tuple(part[column] for part in told)
        below, codes = self._below(tokens)[cells], self.in_columns(canvas.codes)[cells]
        slots = torch.arange(self.vocabulary.slots, device=cells.device).expand_as(cells)[cells]
        quantizers = slots % self.vocabulary.num_quantizers
        features = self.cells(context, below, told)
        nats = [
            nn.functional.cross_entropy(
                head(features[quantizers == q]).float(), codes[quantizers == q], reduction="none"
            )
            for q, head in enumerate(self.heads)
        ]
        return torch.cat(nats)

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

    def _places(self, canvas: Canvas, columns: Tensor) -> Tensor:
        """columns (batch, any) by number → (batch, any, dim): how far they are from the beginning and the
        end, where these are known."""
        unknown = self.vocabulary.max_columns
        begin = torch.where(canvas.whole[:, :1], columns, unknown)
        left = (canvas.num_columns[:, None] - 1 - columns).clamp(min=0)
        end = torch.where(canvas.whole[:, 1:], left, unknown)
        both: Tensor = self.begin_embedding(begin) + self.end_embedding(end)
        return both


def _most(columns: Tensor) -> int:
    """Of bool (batch, columns), how many a clip has at most; a rank without clips takes one."""
    return int(columns.sum(dim=1).max()) if len(columns) else 1


def _head(dim: int, size: int) -> nn.Sequential:
    """(batch, dim) → (batch, size)."""
    return nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, size))


@torch.inference_mode()
def sample_masked(
    prior: MaskedPrior,
    canvas: Canvas,
    config: SamplingConfig,
    generator: torch.Generator,
) -> Tensor:
    """The canvas's codes, its holes filled; all others as they are.

    In each of `config.steps` some columns' holes are drawn (`turns`), from all that is known by then.
    What a clip gets does not depend on those after it. `generator` is one of the CPU.
    """
    vocabulary, device = prior.vocabulary, canvas.codes.device
    hidden = canvas.hidden & canvas.inside[:, None, None]
    turn = turns(hidden.any(dim=2).any(dim=1).cpu(), config.steps).to(device)
    uniform = torch.rand(*turn.shape, vocabulary.slots, 1, generator=generator).to(device)
    guided = config.guidance != 0 and canvas.labels.shape[1] > 0
    labels = canvas.labels[None]
    if guided:  # each clip with the labels asked for, and with none
        opened = labels.new_tensor(prior.label_sizes).expand_as(labels)
        labels = torch.cat([labels, opened])
    for step in range(int(turn.max()) + 1):
        now = turn == step
        seen = replace(canvas, hidden=hidden).repeat(len(labels))
        context, told = prior.context(
            replace(seen, labels=labels.flatten(0, 1)), now.repeat(len(labels), 1)
        )
        tokens, holes = prior.tokens(canvas), prior.in_columns(hidden)[now]
        context = context.unflatten(0, (len(labels), -1))
        told = tuple(part.unflatten(0, (len(labels), -1)) for part in told)
        tokens[now] = _drawn(prior, tokens[now], holes, context, told, uniform[now], config)
        canvas = replace(canvas, codes=prior.codes(tokens, canvas))
        hidden = hidden & ~now[:, None, None]
    return canvas.codes


def _drawn(
    prior: MaskedPrior,
    tokens: Tensor,
    holes: Tensor,
    context: Tensor,
    told: tuple[Tensor, ...],
    uniform: Tensor,
    config: SamplingConfig,
) -> Tensor:
    """Columns' tokens (columns, slots), those in `holes` drawn, from low to high.

    `context` (ways, columns, slots, cell) and `told`, (ways, columns, cell) each, are what
    `MaskedPrior.context` gives with the labels asked for and, where there are two ways, without, from which to be led away.
    """
    vocabulary, below = prior.vocabulary, prior.below
    padded = nn.functional.pad(tokens, (below, 0), value=prior.nothing)
    for slot in holes.any(dim=0).nonzero()[:, 0].tolist():
        quantizer, here = slot % vocabulary.num_quantizers, below + slot
        seen = padded[:, slot:here].expand(len(context), -1, -1)
        asked, *anything = prior.logits(context[:, :, slot], seen, told, quantizer)
        logits = asked + config.guidance * (asked - anything[0]) if anything else asked
        drawn = draw(logits, config, uniform[:, slot]) + quantizer * vocabulary.codebook_size
        padded[:, here] = torch.where(holes[:, slot], drawn, padded[:, here])
    return padded[:, below:]

"""Masked prior: a bidirectional transformer that predicts masked codes from all unmasked ones.

It is trained on random masks and sampled in a few parallel steps (Chang et al. 2022, MaskGIT; for audio
codes: Garcia et al. 2023, VampNet). As it sees the future, which an autoregressive prior does not, it
can inpaint parts of a grid (Bazin et al. 2020, NOTONO), or sample a whole one in a few steps.

Codes sampled in parallel do not depend on each other, but those of one column should, most of all. So
attention is over columns, and a column decoder samples a column's codes from low to high (`column_decoder.py`;
Li et al. 2024, "Autoregressive Image Generation without Vector Quantization", also put such a network
on masked attention). Columns sampled in the same step lie apart, with others in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from audiovq.config.sampling import SamplingConfig, Settled
from audiovq.config.settings import MaskedConfig
from audiovq.models.priors.attention import TransformerBlock, compute_modulations, init_weights
from audiovq.models.priors.column_decoder import ColumnDecoder, drop_tokens
from audiovq.models.priors.labels import Ends, drop_labels, label_embeddings
from audiovq.models.priors.masking import MaskedClips
from audiovq.models.priors.sampling import sample_categorical
from audiovq.models.priors.tokens import Vocabulary
from audiovq.models.priors.transformer import Transformer
from audiovq.runtime import distributed

MAX_PREFIX = 15
"""Maximum number of codes just below it, in its own column, that a code sees directly."""
NEIGHBOURS = (-2, 0), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, -1), (1, 0), (1, 1), (2, 0)
"""Offsets (columns, slots) of the other codes that it sees directly, where unmasked."""


class MaskedPrior(nn.Module):
    """p(masked codes of a column | unmasked codes, level, length, labels).

    Two more heads predict the number of columns from the labels, and the level from both, where no training clip has
    these labels: see `draw_sizes`.
    """

    _token_offsets: Tensor
    """(quantizers, 1, 1): token minus code, of each quantizer."""
    vectors: Tensor
    """(quantizers, codebook_size, dim) code vectors of the autoencoder, which sampled codes are smoothed by; not trained."""

    def __init__(
        self,
        config: MaskedConfig,
        vocabulary: Vocabulary,
        label_sizes: tuple[int, ...],
        numbers: Mapping[int, Ends] = MappingProxyType({}),
        code_dim: int = 1,
    ) -> None:
        """`label_sizes`: number of values of each label; the index after the last is the null label. `numbers`: the
        ends of the range of each label that is a number, by its index. `code_dim`: dimensions of `vectors`."""
        super().__init__()
        self.config = config
        self.vocabulary = vocabulary
        self.label_sizes = label_sizes
        self.longest_complete = (True, True)
        """Whether new sounds of the most columns begin and end as recordings do; shorter ones always do."""
        self.sizes = torch.zeros(0, len(label_sizes) + 2, dtype=torch.long)
        """(clips, labels + 2): labels, number of columns and level of training clips that are as long as new sounds are;
        on the CPU."""
        self.sweeps = 0
        """`SamplingConfig.sweeps` of new sounds, fitted after training."""
        dim, columns, slots = config.dim, vocabulary.max_columns, vocabulary.slots
        self.mask_token, self.pad_token = vocabulary.end, vocabulary.end + 1
        self.prefix = min(max(1, slots - 1), MAX_PREFIX)
        self.column_decoder = ColumnDecoder(
            dim, config.cell, vocabulary.end + 2, slots, len(NEIGHBOURS), self.prefix
        )
        offsets = torch.arange(0, vocabulary.end, vocabulary.codebook_size)
        self.register_buffer("_token_offsets", offsets[:, None, None], persistent=False)
        shape = vocabulary.num_quantizers, vocabulary.codebook_size, code_dim
        self.register_buffer("vectors", torch.zeros(shape), persistent=False)
        self.begin_embedding = nn.Embedding(columns + 1, dim)
        self.end_embedding = nn.Embedding(columns + 1, dim)
        self.level_embedding = nn.Embedding(vocabulary.num_levels, dim)
        self.label_embeddings = label_embeddings(label_sizes, numbers, dim)
        layers = [TransformerBlock(config) for _ in range(config.layers)]
        self.layers = nn.ModuleList(layers)
        self.heads = nn.ModuleList(
            nn.Linear(config.cell, vocabulary.codebook_size)
            for _ in range(vocabulary.num_quantizers)
        )
        self.length_head = _mlp_head(dim, columns)
        self.level_head = _mlp_head(dim, vocabulary.num_levels)
        self.apply(init_weights)
        for layer in layers:
            layer.zero_init()
        self.column_decoder.zero_init()

    def can_start_from(self, prior: Transformer) -> bool:
        """Whether `prior` has the same sizes, as `start_from` requires."""
        ours, theirs = self.config, prior.config
        return prior.group == self.vocabulary.slots and all(
            getattr(ours, name) == getattr(theirs, name)
            for name in ("dim", "cell", "layers", "heads")
        )

    @torch.no_grad()
    def start_from(self, prior: Transformer) -> None:
        """Initialize from an autoregressive prior of the same sizes, trained on the same codes.

        Embeddings that it lacks, those of mask tokens and future neighbours, become 0.
        """
        size, slots = self.vocabulary.codebook_size, self.vocabulary.slots
        for ours, theirs in (
            (self.layers, prior.layers),
            (self.label_embeddings, prior.label_embeddings),
            (self.level_embedding, prior.level_embedding),
        ):
            ours.load_state_dict(theirs.state_dict())
        for quantizer, head in enumerate(self.heads):
            part = slice(quantizer * size, (quantizer + 1) * size)
            torch.as_tensor(head.weight).copy_(prior.head.weight[part])
            torch.as_tensor(head.bias).copy_(prior.head.bias[part])
        positions = prior.position_embedding.weight[1:-1]
        self.begin_embedding.weight[: len(positions)] = positions
        lags = [slots * -column - slot for column, slot in NEIGHBOURS]
        shared = {i: prior.lags.index(lag) for i, lag in enumerate(lags) if lag in prior.lags}
        self.column_decoder.init_from(prior.column_decoder, self.vocabulary.end, shared)

    def forward(self, clips: MaskedClips) -> Tensor:
        """Masked clips → logits (batch, quantizers, rows, columns, codebook_size) of all codes.

        The logits of a code depend on the unmasked codes and on all codes below it in its own column,
        masked or not, but never on padding.
        """
        return self._logits(clips, self.tokens(clips))

    def context(self, clips: MaskedClips, columns: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Inputs and modulation of the column decoder for selected `columns`, bool (batch, columns).

        The inputs (selected, slots, cell) are computed from all unmasked codes; the modulation is
        (selected, cell) each. Attention is over selected columns and those with unmasked codes.
        """
        valid, mask = clips.valid, self.to_slots(clips.hidden)
        tokens, condition = self._masked_tokens(clips), self._clip_condition(clips)
        # Selected columns first, then those with unmasked codes. The rest carry no information.
        informative = valid & ~mask.all(dim=2)
        used = columns | informative
        priority = torch.where(columns, 2, informative.int())
        order = priority.argsort(dim=1, descending=True, stable=True)
        order = order[:, : _max_count(used)]
        selected = order[:, : _max_count(columns)]
        key_mask = (used & valid).gather(1, order)[:, None, None]
        reordered = tokens.gather(1, order[:, :, None].expand(-1, -1, tokens.shape[2]))
        x = self.column_decoder.embed_columns(reordered)
        x = x + self._embed_positions(clips, order) + condition[:, None]
        num_queries = [None] * (len(self.layers) - 1) + [selected.shape[1]]
        modulations = compute_modulations(self.layers, condition)
        for layer, modulation, count in zip(self.layers, modulations, num_queries, strict=True):
            x = layer(x, modulation, key_mask=key_mask, num_queries=count)
        x = x[columns.gather(1, selected)]
        clip = columns.nonzero()[:, 0]
        cell_modulation = self.column_decoder.compute_modulation(condition)
        inputs = self.column_decoder.cell_inputs(x, self._neighbours(tokens)[columns])
        return inputs, tuple(part[clip] for part in cell_modulation)

    def logits(
        self, inputs: Tensor, prefix: Tensor, modulation: tuple[Tensor, ...], quantizer: int
    ) -> Tensor:
        """Cell inputs (…, cell), preceding tokens (…, prefix), modulation (…, cell) each → logits (…,
        codebook_size) of codes of one quantizer."""
        logits: Tensor = self.heads[quantizer](self.column_decoder(inputs, prefix, modulation))
        return logits.float()

    def to_slots(self, grid: Tensor) -> Tensor:
        """(batch, quantizers, rows, columns) → (batch, columns, slots), from low to high frequency."""
        return grid.permute(0, 3, 2, 1).flatten(2)

    def tokens(self, clips: MaskedClips) -> Tensor:
        """Tokens (batch, columns, slots) of all codes, masked ones too; padding is `pad_token`."""
        tokens = self.to_slots(clips.codes + self._token_offsets)
        return tokens.masked_fill(~clips.valid[:, :, None], self.pad_token)

    def codes(self, tokens: Tensor, clips: MaskedClips) -> Tensor:
        """Inverse of `tokens`; padding is copied from `clips`."""
        vocabulary = self.vocabulary
        grid = tokens.unflatten(2, (vocabulary.rows, vocabulary.num_quantizers))
        codes = grid.permute(0, 3, 2, 1) - self._token_offsets
        return torch.where(clips.valid[:, None, None], codes, clips.codes)

    def _logits(self, clips: MaskedClips, tokens: Tensor) -> Tensor:
        """`forward` with `tokens` (batch, columns, slots) as the prefixes of the column decoder.

        Computes every position, masked or not, so that shapes do not depend on values (no GPU sync).
        """
        vocabulary, valid = self.vocabulary, clips.valid
        masked_tokens = self._masked_tokens(clips)
        condition = self._clip_condition(clips)
        columns = torch.arange(valid.shape[1], device=valid.device).expand_as(valid)
        x = self.column_decoder.embed_columns(masked_tokens)
        x = x + self._embed_positions(clips, columns) + condition[:, None]
        modulations = compute_modulations(self.layers, condition)
        for layer, modulation in zip(self.layers, modulations, strict=True):
            x = layer(x, modulation, key_mask=valid[:, None, None])
        inputs = self.column_decoder.cell_inputs(x, self._neighbours(masked_tokens))
        cell_modulation = self.column_decoder.compute_modulation(condition)
        modulation = tuple(part[:, None, None] for part in cell_modulation)
        features = self.column_decoder(inputs, self._prefixes(tokens), modulation)
        cells = features.unflatten(2, (vocabulary.rows, vocabulary.num_quantizers))
        logits = [head(cells[:, :, :, q]).float() for q, head in enumerate(self.heads)]
        return torch.stack(logits, dim=1).transpose(2, 3)

    def _prefixes(self, tokens: Tensor) -> Tensor:
        """Tokens (…, slots) → the `self.prefix` tokens just below each: (…, slots, prefix)."""
        padded = nn.functional.pad(tokens, (self.prefix, 0), value=self.pad_token)
        return padded[..., :-1].unfold(-1, self.prefix, 1)

    def _neighbours(self, tokens: Tensor) -> Tensor:
        """Tokens (batch, columns, slots) → neighbours (batch, columns, slots, len(NEIGHBOURS))."""
        _, columns, slots = tokens.shape
        padded = nn.functional.pad(tokens, (1, 1, 2, 2), value=self.pad_token)
        parts = [
            padded[:, 2 + column : 2 + column + columns, 1 + slot : 1 + slot + slots]
            for column, slot in NEIGHBOURS
        ]
        return torch.stack(parts, dim=3)

    def _masked_tokens(self, clips: MaskedClips) -> Tensor:
        """Tokens (batch, columns, slots) of the clips, with `mask_token` for masked codes."""
        mask = self.to_slots(clips.hidden) & clips.valid[:, :, None]
        return self.tokens(clips).masked_fill(mask, self.mask_token)

    def _clip_condition(self, clips: MaskedClips) -> Tensor:
        """Sum (batch, dim) of the label and level embeddings."""
        levels: Tensor = self.level_embedding(clips.levels)
        return self.condition(clips.labels) + levels

    def condition(self, labels: Tensor) -> Tensor:
        """Sum of the label embeddings: labels (batch, labels) → (batch, dim)."""
        condition = self.level_embedding.weight.new_zeros(len(labels), self.config.dim)
        for i, embedding in enumerate(self.label_embeddings):
            condition = condition + embedding(labels[:, i])
        return condition

    def loss(self, clips: MaskedClips) -> tuple[Tensor, Tensor, Tensor]:
        """Mean negative log-likelihood in nats: (per masked code, of a clip's length, of its level)."""
        mask = clips.hidden & clips.valid[:, None, None]
        tokens = self.tokens(clips)
        if self.training:
            tokens = drop_tokens(tokens, self.pad_token)
        if mask.is_cuda:  # selecting the masked codes by a bool mask would synchronize
            logits = self._logits(clips, tokens).flatten(0, 3)
            nats = nn.functional.cross_entropy(logits, clips.codes.flatten(), reduction="none")
            mean = distributed.local_mean_term(nats, mask.flatten().float())
        else:
            mean = distributed.local_mean_term(self._nats(clips, tokens, self.to_slots(mask)))
        length_known = self.length_known(clips.num_columns, clips.whole)
        lengths, levels = (
            nn.functional.cross_entropy(logits.float(), target, reduction="none")
            for logits, target in (
                (self._length_logits(clips.labels), clips.num_columns - 1),
                (self._level_logits(clips.labels, clips.num_columns), clips.levels),
            )
        )
        count = distributed.all_reduce_mean(length_known.sum().float()).clamp(
            min=1 / distributed.world_size()
        )
        sums = (lengths * length_known).sum(), (levels * length_known).sum()
        return mean, sums[0] / count, sums[1] / count

    def length_known(self, num_columns: Tensor, whole: Tensor) -> Tensor:
        """Whether clips of `num_columns` (batch,), with `whole` as in `MaskedClips`, have the length of a new sound,
        bool (batch,).

        Clips of the most columns count without their end, as none is longer, and without their beginning where new
        sounds of that length have none. The length of other cropped clips is unknown.
        """
        begins, ends = whole.unbind(dim=1)
        longest = num_columns == self.vocabulary.max_columns
        if self.longest_complete[0]:
            return begins & (ends | longest)
        return begins & ends | longest

    def complete(self, num_columns: Tensor) -> Tensor:
        """Whether new clips of `num_columns` (batch,) begin and end as recordings do, bool (batch, 2).

        Shorter clips do; those of the most columns as `longest_complete` says.
        """
        complete = torch.tensor(self.longest_complete, device=num_columns.device)
        return complete | (num_columns < self.vocabulary.max_columns)[:, None]

    def _nats(self, clips: MaskedClips, tokens: Tensor, cells: Tensor) -> Tensor:
        """Negative log-likelihood (codes,), in nats, at `cells`, bool (batch, columns, slots)."""
        columns = cells.any(dim=2)
        inputs, modulation = self.context(clips, columns)
        inputs, column = inputs[cells[columns]], cells[columns].nonzero()[:, 0]
        modulation = tuple(part[column] for part in modulation)
        prefix, codes = self._prefixes(tokens)[cells], self.to_slots(clips.codes)[cells]
        slots = torch.arange(self.vocabulary.slots, device=cells.device).expand_as(cells)[cells]
        quantizers = slots % self.vocabulary.num_quantizers
        features = self.column_decoder(inputs, prefix, modulation)
        nats = [
            nn.functional.cross_entropy(
                head(features[quantizers == q]).float(), codes[quantizers == q], reduction="none"
            )
            for q, head in enumerate(self.heads)
        ]
        return torch.cat(nats)

    def draw_sizes(
        self, labels: Tensor, sampling: SamplingConfig, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Sample the number of columns (batch,) and the level (batch,) for labels (batch, labels).

        They are those of a random training clip with these labels, null labels aside. Where there is none, the heads
        predict them: the level with temperature and guidance, as the autoregressive prior does; the length without.
        """
        uniform = torch.rand(len(labels), 2, 1, generator=generator)
        sizes = self._predicted_sizes(labels, sampling.settled(), uniform.to(labels.device))
        if len(self.sizes):
            clips, found = self._clips_with(labels.cpu(), uniform[:, 0])
            of_clips = self.sizes[clips, -2:].to(labels.device)
            sizes = torch.where(found[:, None].to(labels.device), of_clips, sizes)
        num_columns, levels = sizes.unbind(dim=1)
        return num_columns, levels

    def _predicted_sizes(self, labels: Tensor, sampling: Settled, uniform: Tensor) -> Tensor:
        """Number of columns and level (batch, 2), from the heads' distributions at `uniform` (batch, 2, 1)."""
        plain = Settled(temperature=1.0)
        length_logits = self._length_logits(labels).float()
        num_columns = 1 + sample_categorical(length_logits, plain, uniform[:, 0])
        level_logits = self._level_logits(labels, num_columns).float()
        if sampling.guidance and labels.shape[1]:
            null = labels.new_tensor(self.label_sizes).expand_as(labels)
            open_logits = self._level_logits(null, num_columns).float()
            level_logits = level_logits + sampling.guidance * (level_logits - open_logits)
        level_sampling = Settled(temperature=sampling.temperature)
        levels = sample_categorical(level_logits, level_sampling, uniform[:, 1])
        return torch.stack([num_columns, levels], dim=1)

    def _clips_with(self, labels: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (batch,) of `sizes` that have the labels (batch, labels), null labels aside, chosen by `uniform` (batch, 1);
        and whether there is one, bool (batch,)."""
        null = torch.tensor(self.label_sizes, dtype=torch.long)
        matching = ((self.sizes[:, :-2] == labels[:, None]) | (labels == null)[:, None]).all(dim=2)
        order = matching.cumsum(dim=1)  # 1, 2, … at those that match
        count = order[:, -1:]
        rank = 1 + (uniform * count).long().clamp(max=count - 1)
        return (matching & (order == rank)).long().argmax(dim=1), count[:, 0] > 0

    def hide_labels(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Label dropout: see `drop_labels`, at the configured rate."""
        return drop_labels(labels, self.label_sizes, self.config.label_dropout, generator)

    def _length_logits(self, labels: Tensor) -> Tensor:
        logits: Tensor = self.length_head(self.condition(labels))
        return logits

    def _level_logits(self, labels: Tensor, num_columns: Tensor) -> Tensor:
        condition = self.condition(labels) + self.end_embedding(num_columns - 1)
        logits: Tensor = self.level_head(condition)
        return logits

    def _embed_positions(self, clips: MaskedClips, columns: Tensor) -> Tensor:
        """Column indices (batch, any) → position embeddings (batch, any, dim).

        They encode the distances to the sound's beginning and end, where the clip includes these.
        """
        unknown = self.vocabulary.max_columns
        begin = torch.where(clips.whole[:, :1], columns, unknown)
        remaining = (clips.num_columns[:, None] - 1 - columns).clamp(min=0)
        end = torch.where(clips.whole[:, 1:], remaining, unknown)
        both: Tensor = self.begin_embedding(begin) + self.end_embedding(end)
        return both


def _max_count(columns: Tensor) -> int:
    """Maximum over clips of the number of True in bool (batch, columns); 1 for an empty batch."""
    return int(columns.sum(dim=1).max()) if len(columns) else 1


def _mlp_head(dim: int, size: int) -> nn.Sequential:
    """MLP (batch, dim) → (batch, size)."""
    return nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, size))

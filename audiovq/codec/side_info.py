"""Side information of an archive: the sounds' names, levels and lengths."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence

import constriction
import numpy as np

from audiovq.codec.windows import Encoded
from audiovq.config.errors import AudiovqError
from audiovq.models.entropy.context_tables import Integers
from audiovq.models.model import Model

LARGEST_NAME = 2 + (1 << 16)
"""Most bytes of one name in the block of names."""
LARGEST_NAMES = 1 << 26
"""Most bytes of all names, half a million long ones: an archive with more is treated as damaged."""
MOST_PER_COLUMN = 1 << 24
"""Most samples per column: the largest uniform distribution of the range coder."""


def deflate_names(names: Iterable[str]) -> bytes:
    """The block of names. Raises AudiovqError if a name is not text or too long."""
    block = bytearray()
    for name in names:
        try:
            data = name.encode("utf-8", "surrogateescape")
            if data.decode("utf-8", "surrogateescape") != name:
                raise ValueError("text written as surrogate escapes")
            block += struct.pack("<H", len(data)) + data
        except (ValueError, struct.error) as error:
            raise AudiovqError(
                f"{name!r:.80}: this name cannot be stored in an archive; rename the file"
            ) from error
    if len(block) > LARGEST_NAMES:
        raise AudiovqError(
            f"the file names take {len(block) >> 20} MiB; split them into several archives"
        )
    return zlib.compress(bytes(block), 9)


def inflate_names(data: bytes, sounds: int) -> list[str]:
    """Inverse of `deflate_names` for a number of sounds; inflates no more bytes than they may take."""
    inflater, names, offset = zlib.decompressobj(), list[str](), 0
    try:
        block = inflater.decompress(data, 1 + min(LARGEST_NAMES, sounds * LARGEST_NAME))
        while offset < len(block) and len(names) < sounds:
            (length,) = struct.unpack_from("<H", block, offset)
            name = block[offset + 2 : offset + 2 + length]
            offset += 2 + length
            names.append(name.decode("utf-8", "surrogateescape"))
    except (zlib.error, struct.error) as error:
        raise AudiovqError(f"damaged: its names cannot be read ({error})") from error
    is_complete = inflater.eof and not inflater.unused_data and offset == len(block)
    if not is_complete or len(names) != sounds or len(set(names)) != sounds:
        raise AudiovqError("damaged: its names do not match its sounds")
    return names


class SideInfoCoder:
    """Coder of levels and lengths: levels and columns by their frequencies in training, the samples beyond
    whole columns uniformly."""

    def __init__(self, model: Model) -> None:
        def categorical(counts: Sequence[float]) -> constriction.stream.model.Categorical:
            weights = np.array(counts, dtype=np.float32)
            return constriction.stream.model.Categorical(weights, perfect=False)

        uniform = constriction.stream.model.Uniform
        tables = model.context
        num_levels = model.spectrogram.config.num_levels
        self.level = categorical(tables.level_counts) if tables else uniform(num_levels)
        # Index 0 escapes to lengths of more columns than the table has.
        self.most_columns = len(tables.column_counts) - 1 if tables else 0
        self.column = categorical(tables.column_counts) if tables else None
        self.half_word = uniform(1 << 16)
        self.per_column = model.autoencoder.stride[1] * model.spectrogram.config.hop_length
        if self.per_column > MOST_PER_COLUMN:
            raise AudiovqError(
                f"archives cannot hold sounds of {self.per_column} samples per column"
            )
        self.rest = uniform(max(2, self.per_column))

    def write(
        self, encoded: Sequence[Encoded], stream: constriction.stream.queue.RangeEncoder
    ) -> None:
        """Write levels and lengths to the stream."""
        columns = np.array([sound.codes.shape[2] for sound in encoded], dtype=np.int32)
        samples = np.array([sound.num_samples for sound in encoded], dtype=np.int64)
        stream.encode(np.array([sound.level for sound in encoded], dtype=np.int32), self.level)
        common = np.where(columns <= self.most_columns, columns, 0).astype(np.int32)
        if self.column is not None:
            stream.encode(common, self.column)
        rare = columns[common == 0]
        stream.encode(rare >> 16, self.half_word)
        stream.encode(rare & 0xFFFF, self.half_word)
        rests = samples - (columns - 1) * self.per_column
        stream.encode(rests.astype(np.int32), self.rest)

    def read(
        self, sounds: int, stream: constriction.stream.queue.RangeDecoder
    ) -> tuple[Integers, Integers, Integers]:
        """Inverse of `write`: levels, columns and lengths in samples, each (sounds,)."""
        levels = stream.decode(self.level, sounds).astype(np.int64)
        columns = np.zeros(sounds, dtype=np.int64)
        if self.column is not None:
            columns[:] = stream.decode(self.column, sounds)
        rare = columns == 0
        high = stream.decode(self.half_word, int(rare.sum())).astype(np.int64)
        columns[rare] = (high << 16) | stream.decode(self.half_word, int(rare.sum()))
        rests = stream.decode(self.rest, sounds).astype(np.int64)
        return levels, columns, (columns - 1) * self.per_column + rests

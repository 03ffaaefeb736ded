"""Archives (.avq): many sounds as entropy-coded codes in one file, and back.

    b"AVQ\x01"   format and version
    damage       4 bytes: CRC-32 of all that follows
    coder        1 byte: what the codes' probabilities come from, see CODERS
    model        4 bytes: the first of the autoencoder's SHA-256
    predictor    4 bytes: the same of what tells chances: the context tables', then the prior's
    content      4 bytes: CRC-32 of levels, lengths and codes as they must come out
    sounds       4 bytes: how many
    names        4 bytes: how many bytes the next part takes
                 each name's bytes, 2 bytes their number before them, deflated
    stream       32-bit words of one range coder: every level and length, then every code

Numbers are little-endian. Codes come in lockstep: the first cell of every sound, then the second,
so that a whole folder is predicted at once. Sounds longer than a segment are cut for this; to
decoding they are whole again. `docs/formats.md` has it to the bit.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import constriction
import numpy as np
import numpy.typing as npt
import torch

from audiovq.audio.waveform import Waveform
from audiovq.codec import codec
from audiovq.codec.probabilities import CODERS, Coder, EntropyModel, Floats, entropy_model_for
from audiovq.codec.windows import Encoded
from audiovq.config.errors import AudiovqError
from audiovq.models.entropy.context_tables import SEGMENT_COLUMNS, Integers
from audiovq.models.entropy.rate_search import least_weight
from audiovq.models.model import Model

MAGIC = b"AVQ\x01"
HEADER = struct.Struct("<4sIB4s4sIII")
CHECKED = 8
"""Where the bytes begin that the checksum of the archive covers."""
LARGEST_NAME = 2 + (1 << 16)
"""Bytes that a name takes at the most."""
LARGEST_NAMES = 1 << 26
"""Bytes that all names may take, of an archive that is believed: half a million long ones."""
BITS = 32
"""Of a word."""
GROUP = 256
"""Segments that are coded together: bounds the memory."""
MOST_PER_COLUMN = 1 << 24
"""Samples: what the range coder can tell apart, to a power of two."""
LONGEST_SECONDS = 86_400
"""No sound is believed to last longer: what says so is damaged."""
DAMAGED = "damaged: the sounds do not come out as they went in, so they are not given out"
UNEQUAL = (
    "the sounds do not come out as they went in, so they are not given out: this machine computes"
    " the prior's probabilities otherwise than the one that wrote the archive; decode there, or"
    " encode with --coder context"
)
Words = npt.NDArray[np.uint32]
_categorical = constriction.stream.model.Categorical(perfect=False)


def pack(model: Model, sounds: Mapping[str, Encoded], coder: Coder | None = None) -> bytes:
    """Sounds by name → the bytes of an archive.

    `coder` None: `context` where the model has its tables, else `plain`. Raises AudiovqError where
    the model lacks what the coder needs.
    """
    coder = coder or ("plain" if model.context is None else "context")
    predictor = entropy_model_for(model, coder)
    encoded = list(sounds.values())
    columns = [sound.codes.shape[2] for sound in encoded]
    stream = constriction.stream.queue.RangeEncoder()
    _Sides(model).write(encoded, stream)

    for group in _groups(columns, _segment_columns(model, coder)):
        block = np.zeros((len(group), *_shape(model), group[0].columns), dtype=np.int64)
        for segment, part in zip(group, block, strict=True):
            part[:, :, : segment.columns] = encoded[segment.sound].codes[:, :, segment.columns_of()]
        levels = np.array([encoded[segment.sound].level for segment in group])

        def write(chances: Floats, codes: Integers) -> Integers:
            stream.encode(codes.astype(np.int32), _categorical, chances)
            return codes

        _walk(group, block, levels, predictor, write)
    names = _deflated(sounds)
    header = HEADER.pack(
        MAGIC,
        0,
        CODERS.index(coder),
        *_fingerprints(model, coder),
        _content(encoded),
        len(sounds),
        len(names),
    )
    body = header + names + np.asarray(stream.get_compressed(), dtype="<u4").tobytes()
    return with_checksum(body)


def with_checksum(data: bytes) -> bytes:
    """An archive's bytes with the checksum that belongs to them."""
    return MAGIC + struct.pack("<I", zlib.crc32(data[CHECKED:])) + data[CHECKED:]


def unpack(model: Model, data: bytes) -> dict[str, Encoded]:
    """The inverse of `pack`, in the same order.

    Raises AudiovqError where the bytes are no archive, are damaged, were made with another model,
    or come out other than they went in.
    """
    coder, names, words, content = _opened(model, data)
    unequal = UNEQUAL if coder == "prior" else DAMAGED
    predictor = entropy_model_for(model, coder)
    stream = constriction.stream.queue.RangeDecoder(words)
    spent = _Spent(len(words))

    def read(chances: Floats, _: Integers) -> Integers:
        codes = np.asarray(stream.decode(_categorical, chances), dtype=np.int64)
        spent.add(chances, codes)
        return codes

    try:
        levels, columns, lengths = _Sides(model).read(len(names), stream)
        if (columns < 1).any() or (lengths > LONGEST_SECONDS * model.sample_rate).any():
            raise AudiovqError("damaged: it says that a sound lasts more than a day, or not at all")
        # Sounds grow as their codes are read: no length is believed before.
        parts: list[list[Integers]] = [[] for _ in names]
        for group in _groups(columns.tolist(), _segment_columns(model, coder)):
            block = np.zeros((len(group), *_shape(model), group[0].columns), dtype=np.int64)
            _walk(group, block, levels[[segment.sound for segment in group]], predictor, read)
            for segment, part in zip(group, block, strict=True):
                parts[segment.sound].append(part[:, :, : segment.columns])
    except (AssertionError, ValueError) as error:  # the range decoder's, of words that none wrote
        raise AudiovqError(unequal) from error
    encoded = [
        Encoded(torch.from_numpy(np.concatenate(grid, axis=2)), level, length)
        for grid, level, length in zip(parts, levels.tolist(), lengths.tolist(), strict=True)
    ]
    if _content(encoded) != content or not stream.maybe_exhausted():
        raise AudiovqError(unequal)
    return dict(zip(names, encoded, strict=True))


def size_without_names(data: bytes) -> int:
    """Bytes of an archive, the block of names left out."""
    return len(data) - int(HEADER.unpack_from(data)[-1])


def weight_within(
    model: Model, waveforms: Sequence[Waveform], rate: float, coder: Coder | None = None
) -> float:
    """The least weight of bits with which an archive of `waveforms` takes at most `rate` bit/s.

    LARGEST_WEIGHT where no weight does. For `codec.encode(…, rate_weight=…)`. Raises AudiovqError
    where the model has no tables to weigh bits by.
    """
    if model.context is None:
        raise AudiovqError("the model has no context tables, so it cannot meet a rate")

    def stored(weight: float) -> float:
        encoded = codec.encode(model, waveforms, rate_weight=weight)
        sounds = {str(number): sound for number, sound in enumerate(encoded)}
        return rates(model, sounds, pack(model, sounds, coder))["stored_bits_per_second"]

    return least_weight(stored, rate, 0.0)


def rates(model: Model, sounds: Mapping[str, Encoded], data: bytes) -> dict[str, float]:
    """files, seconds, and bits per second (0 of no sound): nominal (every code and level at its full bits), stored
    (the archive's, names left out)."""
    seconds = sum(sound.num_samples for sound in sounds.values()) / model.sample_rate
    bits_per_code = math.log2(model.autoencoder.config.bottleneck.num_codes)
    bits_per_level = math.log2(model.spectrogram.config.num_levels)
    bits = sum(sound.codes.numel() * bits_per_code + bits_per_level for sound in sounds.values())
    return {
        "files": len(sounds),
        "seconds": seconds,
        "nominal_bits_per_second": bits / seconds if seconds else 0.0,
        "stored_bits_per_second": 8 * size_without_names(data) / seconds if seconds else 0.0,
    }


def _opened(model: Model, data: bytes) -> tuple[Coder, list[str], Words, int]:
    """An archive's bytes, checked → coder, names, words of the stream, CRC-32 of the content."""
    if data[:3] != MAGIC[:3] or len(data) < len(MAGIC):
        raise AudiovqError("not an archive (.avq)")
    if data[:4] != MAGIC:
        raise AudiovqError(f"archive version {data[3]}; this program reads {MAGIC[3]}")
    if len(data) < HEADER.size:
        raise AudiovqError(f"damaged: {len(data)} bytes are no whole archive")
    _, damage, number, autoencoder, predictor, content, sounds, length = HEADER.unpack_from(data)
    if zlib.crc32(data[CHECKED:]) != damage:
        raise AudiovqError("damaged: its checksum is not that of its bytes")
    if number >= len(CODERS):
        raise AudiovqError(f"damaged: its coder is {number}; there are {len(CODERS)}")
    coder = CODERS[number]
    if (autoencoder, predictor) != _fingerprints(model, coder):
        raise AudiovqError("was made with another model; name the one that it was encoded with")
    begin = HEADER.size + length
    if begin > len(data) or (len(data) - begin) % 4:
        raise AudiovqError(f"damaged: {length} bytes of names and whole words do not fit into it")
    words = np.frombuffer(data[begin:], dtype="<u4").astype(np.uint32)
    if sounds > BITS * len(words):  # each takes a bit at the least
        raise AudiovqError(f"damaged: {len(words)} words do not hold {sounds} sounds")
    return coder, _inflated(data[HEADER.size : begin], sounds), words, content


def _deflated(names: Iterable[str]) -> bytes:
    """Names → their block. Raises AudiovqError where one is no text or too long."""
    block = bytearray()
    for name in names:
        try:
            data = name.encode("utf-8", "surrogateescape")
            if data.decode("utf-8", "surrogateescape") != name:
                raise ValueError("bytes that are text written as if they were none")
            block += struct.pack("<H", len(data)) + data
        except (ValueError, struct.error) as error:
            raise AudiovqError(f"{name!r:.80}: no archive holds such a name; rename it") from error
    if len(block) > LARGEST_NAMES:
        raise AudiovqError(f"names of {len(block) >> 20} MiB are too many; make several archives")
    return zlib.compress(bytes(block), 9)


def _inflated(data: bytes, sounds: int) -> list[str]:
    """The inverse of `_deflated`, for so many sounds: no block swells beyond what they may take."""
    inflater, names, place = zlib.decompressobj(), list[str](), 0
    try:
        block = inflater.decompress(data, 1 + min(LARGEST_NAMES, sounds * LARGEST_NAME))
        while place < len(block) and len(names) < sounds:
            (length,) = struct.unpack_from("<H", block, place)
            name = block[place + 2 : place + 2 + length]
            place += 2 + length
            names.append(name.decode("utf-8", "surrogateescape"))
    except (zlib.error, struct.error) as error:
        raise AudiovqError(f"damaged: its names cannot be read ({error})") from error
    whole = inflater.eof and not inflater.unused_data and place == len(block)
    if not whole or len(names) != sounds or len(set(names)) != sounds:
        raise AudiovqError("damaged: its names are not those of its sounds")
    return names


class _Spent:
    """Keeps count of the bits that codes took: where there are no more, there is no more to read.

    The range decoder itself goes on for ever, with zeros. Counted low, so that no true archive is
    refused: its probabilities are ours rounded to 2⁻²⁴, and no code is without one.
    """

    def __init__(self, words: int) -> None:
        self._left = 1.001 * BITS * words + 4 * BITS

    def add(self, chances: Floats, codes: Integers) -> None:
        """Codes that were read by these chances. Raises ValueError where they cannot have been."""
        taken = np.take_along_axis(chances, codes[:, None], axis=1)[:, 0]
        shares = taken.astype(np.float64) / chances.sum(axis=1, dtype=np.float64)
        most = shares * (1 + chances.shape[1] * 2**-25) + 2**-22
        self._left += float(np.log2(np.minimum(1, most)).sum())
        if self._left < 0:
            raise ValueError("codes go on after the last word")


@dataclass(frozen=True)
class _Segment:
    sound: int
    begin: int
    columns: int

    def columns_of(self) -> slice:
        return slice(self.begin, self.begin + self.columns)


def _groups(columns: Iterable[int], longest: int) -> Iterator[list[_Segment]]:
    """Sounds of so many columns → segments, the longest first, so many together."""
    counts = list(columns)
    whole = (
        _Segment(sound, begin, longest)
        for sound, count in enumerate(counts)
        for begin in range(0, count - count % longest, longest)
    )
    rests = [
        _Segment(sound, count - count % longest, count % longest)
        for sound, count in enumerate(counts)
        if count % longest
    ]
    rests.sort(key=lambda segment: -segment.columns)
    segments = itertools.chain(whole, rests)
    while group := list(itertools.islice(segments, GROUP)):
        yield group


def _walk(
    group: Sequence[_Segment],
    block: Integers,
    levels: Integers,
    predictor: EntropyModel,
    transfer: Callable[[Floats, Integers], Integers],
) -> None:
    """Every cell of a group in the order of the stream: `transfer` takes the chances and the codes
    that `block` (segments, quantizers, rows, columns) holds there, and gives the codes to hold."""
    _, quantizers, rows, columns = block.shape
    predictor.begin(levels, columns)
    for column in range(columns):
        active = np.arange(sum(segment.columns > column for segment in group))
        for row in range(rows):
            for q in range(quantizers):
                chances = predictor.chances(active, row, column, q)
                codes = transfer(chances, block[active, q, row, column])
                block[active, q, row, column] = codes
                predictor.learn(active, row, column, q, codes)


class _Sides:
    """How levels and lengths are coded: levels and columns by how common they are in training, what
    a length has beyond whole columns evenly."""

    def __init__(self, model: Model) -> None:
        def by(chances: Sequence[float]) -> constriction.stream.model.Categorical:
            counts = np.array(chances, dtype=np.float32)
            return constriction.stream.model.Categorical(counts, perfect=False)

        uniform = constriction.stream.model.Uniform
        tables = model.context
        num_levels = model.spectrogram.config.num_levels
        self.level = by(tables.level_counts) if tables else uniform(num_levels)
        # Place 0 stands for more columns than the table has.
        self.most_columns = len(tables.column_counts) - 1 if tables else 0
        self.column = by(tables.column_counts) if tables else None
        self.half_word = uniform(1 << 16)
        self.per_column = model.autoencoder.stride[1] * model.spectrogram.config.hop_length
        if self.per_column > MOST_PER_COLUMN:
            raise AudiovqError(f"{self.per_column} samples a column are more than archives know")
        self.rest = uniform(max(2, self.per_column))

    def write(
        self, encoded: Sequence[Encoded], stream: constriction.stream.queue.RangeEncoder
    ) -> None:
        """Levels and lengths into the stream."""
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
        """The inverse of `write`: levels, columns and lengths in samples, each (sounds,)."""
        levels = stream.decode(self.level, sounds).astype(np.int64)
        columns = np.zeros(sounds, dtype=np.int64)
        if self.column is not None:
            columns[:] = stream.decode(self.column, sounds)
        rare = columns == 0
        high = stream.decode(self.half_word, int(rare.sum())).astype(np.int64)
        columns[rare] = (high << 16) | stream.decode(self.half_word, int(rare.sum()))
        rests = stream.decode(self.rest, sounds).astype(np.int64)
        return levels, columns, (columns - 1) * self.per_column + rests


def _segment_columns(model: Model, coder: Coder) -> int:
    """A prior knows no clips longer than those it was trained on."""
    return model.vocabulary.max_columns if coder == "prior" else SEGMENT_COLUMNS


def _shape(model: Model) -> tuple[int, int]:
    """Quantizers and rows of the model's codes. Raises AudiovqError where it has none."""
    return model.autoencoder.quantizer.num_quantizers, model.autoencoder.rows


def _fingerprints(model: Model, coder: Coder) -> tuple[bytes, bytes]:
    """Four bytes for the autoencoder, four for all else that an archive hangs on."""
    parts = ["context"] * (model.context is not None) + ["prior"] * (coder == "prior")
    digests = [model.header.get(part, {}).get("sha256", "") for part in ("autoencoder", *parts)]
    predictor = hashlib.sha256("".join(digests[1:]).encode()).digest()
    return bytes.fromhex(digests[0][:8]).ljust(4, b"\0"), predictor[:4]


def _content(encoded: Sequence[Encoded]) -> int:
    """CRC-32 of what must come out."""
    crc = 0
    for sound in encoded:
        crc = zlib.crc32(struct.pack("<IQ", sound.level, sound.num_samples), crc)
        crc = zlib.crc32(sound.codes.numpy().astype("<u4").tobytes(), crc)
    return crc

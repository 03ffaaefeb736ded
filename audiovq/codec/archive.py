"""Archives (.avq): a file that holds the entropy-coded codes of many sounds.

    b"AVQ\x01"   format and version
    damage       4 bytes: CRC-32 of all bytes that follow
    coder        1 byte: the entropy model, see CODERS
    model        4 bytes: the first of the autoencoder's SHA-256
    predictor    4 bytes: the same of the entropy model's parts: the context tables, then the prior
    content      4 bytes: CRC-32 of the decoded levels, lengths and codes
    sounds       4 bytes: number of sounds
    names        4 bytes: length of the next part in bytes
                 each name, preceded by its length in 2 bytes, deflated
    stream       32-bit words of one range coder: all levels and lengths, then all codes

Numbers are little-endian. Codes are stored in lockstep: the first cell of every sound, then the second, so that
the sounds of a folder are predicted together. Longer sounds are cut into segments for this, and joined in decoding.
`docs/formats.md` specifies it to the bit.
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
from audiovq.codec.side_info import SideInfoCoder, deflate_names, inflate_names
from audiovq.codec.windows import Encoded
from audiovq.config.errors import AudiovqError
from audiovq.models.entropy.context_tables import SEGMENT_COLUMNS, Integers
from audiovq.models.entropy.rate_search import least_weight
from audiovq.models.model import Model

MAGIC = b"AVQ\x01"
HEADER = struct.Struct("<4sIB4s4sIII")
CHECKED = 8
"""Offset of the first byte that the archive's checksum covers."""
BITS = 32
"""Bits of a word of the range coder."""
GROUP = 256
"""Segments that are coded together, which bounds the memory. Part of the format."""
LONGEST_SECONDS = 86_400
"""Longest sound: an archive with a longer one is treated as damaged."""
DAMAGED = "damaged: the decoded sounds do not match their checksum"
UNEQUAL = (
    "the decoded sounds do not match their checksum: the prior's floating-point results on this machine"
    " differ from those of the machine that encoded them; decode there, or encode with --coder context"
)
Words = npt.NDArray[np.uint32]
_categorical = constriction.stream.model.Categorical(perfect=False)


def pack(model: Model, sounds: Mapping[str, Encoded], coder: Coder | None = None) -> bytes:
    """Encode sounds by name to the bytes of an archive.

    `coder` None: `context` if the model has context tables, else `plain`. Raises AudiovqError if the model
    lacks the tables or the prior that the coder needs, and if a sound is longer than LONGEST_SECONDS.
    """
    for name, sound in sounds.items():
        if sound.num_samples > LONGEST_SECONDS * model.sample_rate:
            raise AudiovqError(
                f"{name}: is longer than a day, the most that an archive holds; cut it"
            )
    coder = coder or ("plain" if model.context is None else "context")
    entropy_model = entropy_model_for(model, coder)
    encoded = list(sounds.values())
    columns = [sound.codes.shape[2] for sound in encoded]
    stream = constriction.stream.queue.RangeEncoder()
    SideInfoCoder(model).write(encoded, stream)

    for group in _groups(columns, _segment_columns(model, coder)):
        block = np.zeros((len(group), *_shape(model), group[0].columns), dtype=np.int64)
        for segment, part in zip(group, block, strict=True):
            part[:, :, : segment.columns] = encoded[segment.sound].codes[:, :, segment.columns_of()]
        levels = np.array([encoded[segment.sound].level for segment in group])

        def write(probabilities: Floats, codes: Integers) -> Integers:
            stream.encode(codes.astype(np.int32), _categorical, probabilities)
            return codes

        _walk(group, block, levels, entropy_model, write)
    names = deflate_names(sounds)
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
    """An archive's bytes with the correct checksum."""
    return MAGIC + struct.pack("<I", zlib.crc32(data[CHECKED:])) + data[CHECKED:]


def unpack(model: Model, data: bytes) -> dict[str, Encoded]:
    """Inverse of `pack`: sounds by name, in the same order.

    Raises AudiovqError if the bytes are not an archive, are damaged or of another model, or the decoded
    sounds do not match their checksum.
    """
    coder, names, words, content = _opened(model, data)
    unequal = UNEQUAL if coder == "prior" else DAMAGED
    entropy_model = entropy_model_for(model, coder)
    stream = constriction.stream.queue.RangeDecoder(words)
    budget = _BitBudget(len(words))

    def read(probabilities: Floats, _: Integers) -> Integers:
        codes = np.asarray(stream.decode(_categorical, probabilities), dtype=np.int64)
        budget.spend(probabilities, codes)
        return codes

    try:
        levels, columns, lengths = SideInfoCoder(model).read(len(names), stream)
        if (columns < 1).any() or (lengths > LONGEST_SECONDS * model.sample_rate).any():
            raise AudiovqError("damaged: it states that a sound is empty or longer than a day")
        # Parts are collected as codes are read: nothing is allocated for a length that may be wrong.
        parts: list[list[Integers]] = [[] for _ in names]
        for group in _groups(columns.tolist(), _segment_columns(model, coder)):
            block = np.zeros((len(group), *_shape(model), group[0].columns), dtype=np.int64)
            _walk(group, block, levels[[segment.sound for segment in group]], entropy_model, read)
            for segment, part in zip(group, block, strict=True):
                parts[segment.sound].append(part[:, :, : segment.columns])
    except (AssertionError, ValueError) as error:  # the range decoder's, of damaged words
        raise AudiovqError(unequal) from error
    encoded = [
        Encoded(torch.from_numpy(np.concatenate(grid, axis=2)), level, length)
        for grid, level, length in zip(parts, levels.tolist(), lengths.tolist(), strict=True)
    ]
    if _content(encoded) != content or not stream.maybe_exhausted():
        raise AudiovqError(unequal)
    return dict(zip(names, encoded, strict=True))


def size_without_names(data: bytes) -> int:
    """Bytes of an archive without its block of names."""
    return len(data) - int(HEADER.unpack_from(data)[-1])


def weight_within(
    model: Model, waveforms: Sequence[Waveform], rate: float, coder: Coder | None = None
) -> float:
    """The smallest weight of bits, for `codec.encode`, with which `waveforms` take at most `rate` bit/s.

    LARGEST_WEIGHT if no weight is enough. Raises AudiovqError if the model has no context tables.
    """
    if model.context is None:
        raise AudiovqError("the model has no context tables, so it cannot meet a rate")

    def stored(weight: float) -> float:
        encoded = codec.encode(model, waveforms, rate_weight=weight)
        sounds = {str(number): sound for number, sound in enumerate(encoded)}
        return rates(model, sounds, pack(model, sounds, coder))["stored_bits_per_second"]

    return least_weight(stored, rate, 0.0)


def rates(model: Model, sounds: Mapping[str, Encoded], data: bytes) -> dict[str, float]:
    """Number of files, seconds, and bits per second of an archive (0 without sound).

    nominal: every code and level at its full number of bits; stored: the archive without names.
    """
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
    """Check an archive's bytes: (coder, names, words of the stream, CRC-32 of the content)."""
    if data[:3] != MAGIC[:3] or len(data) < len(MAGIC):
        raise AudiovqError("not an archive (.avq)")
    if data[:4] != MAGIC:
        raise AudiovqError(f"archive version {data[3]}; this program reads {MAGIC[3]}")
    if len(data) < HEADER.size:
        raise AudiovqError(f"damaged: {len(data)} bytes are too few for an archive")
    _, damage, number, autoencoder, predictor, content, sounds, length = HEADER.unpack_from(data)
    if zlib.crc32(data[CHECKED:]) != damage:
        raise AudiovqError("damaged: its bytes do not match their checksum")
    if number >= len(CODERS):
        raise AudiovqError(f"damaged: unknown coder {number}")
    coder = CODERS[number]
    if (autoencoder, predictor) != _fingerprints(model, coder):
        raise AudiovqError("was made with another model; decode it with that one")
    begin = HEADER.size + length
    if begin > len(data) or (len(data) - begin) % 4:
        raise AudiovqError("damaged: its size does not match its header")
    words = np.frombuffer(data[begin:], dtype="<u4").astype(np.uint32)
    if sounds > BITS * len(words):  # each takes at least one bit
        raise AudiovqError(f"damaged: {len(words)} words do not hold {sounds} sounds")
    return coder, inflate_names(data[HEADER.size : begin], sounds), words, content


class _BitBudget:
    """Counts the bits that decoded codes take, to stop at the end of the stream.

    The range decoder itself never ends: it continues with zeros. The count is a lower bound, so that no
    valid archive is refused: the decoder rounds probabilities to 2⁻²⁴ and gives none to zero.
    """

    def __init__(self, words: int) -> None:
        self._left = 1.001 * BITS * words + 4 * BITS

    def spend(self, probabilities: Floats, codes: Integers) -> None:
        """Count codes decoded with these probabilities. Raises ValueError if the stream has ended before."""
        taken = np.take_along_axis(probabilities, codes[:, None], axis=1)[:, 0]
        shares = taken.astype(np.float64) / probabilities.sum(axis=1, dtype=np.float64)
        most = shares * (1 + probabilities.shape[1] * 2**-25) + 2**-22
        self._left += float(np.log2(np.minimum(1, most)).sum())
        if self._left < 0:
            raise ValueError("codes beyond the last word")


@dataclass(frozen=True)
class _Segment:
    """Columns of a sound that are coded in lockstep with those of other segments."""

    sound: int
    begin: int
    columns: int

    def columns_of(self) -> slice:
        return slice(self.begin, self.begin + self.columns)


def _groups(columns: Iterable[int], longest: int) -> Iterator[list[_Segment]]:
    """Segments of up to `longest` columns of sounds with these columns, longest first, in groups of GROUP."""
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
    entropy_model: EntropyModel,
    transfer: Callable[[Floats, Integers], Integers],
) -> None:
    """Code all cells of a group in the order of the stream.

    `transfer` gets the probabilities of a cell and its codes in `block` (segments, quantizers, rows,
    columns), and returns the codes to store there.
    """
    _, quantizers, rows, columns = block.shape
    entropy_model.begin(levels, columns)
    for column in range(columns):
        active = np.arange(sum(segment.columns > column for segment in group))
        for row in range(rows):
            for q in range(quantizers):
                probabilities = entropy_model.probabilities(active, row, column, q)
                codes = transfer(probabilities, block[active, q, row, column])
                block[active, q, row, column] = codes
                entropy_model.observe(active, row, column, q, codes)


def _segment_columns(model: Model, coder: Coder) -> int:
    """Columns of a segment; with a prior, those of its longest clip."""
    return model.vocabulary.max_columns if coder == "prior" else SEGMENT_COLUMNS


def _shape(model: Model) -> tuple[int, int]:
    """Quantizers and rows of the model's codes. Raises AudiovqError if it has none."""
    return model.autoencoder.quantizer.num_quantizers, model.autoencoder.rows


def _fingerprints(model: Model, coder: Coder) -> tuple[bytes, bytes]:
    """Four bytes that identify the autoencoder, and four for the entropy model."""
    parts = ["context"] * (model.context is not None) + ["prior"] * (coder == "prior")
    digests = [model.header.get(part, {}).get("sha256", "") for part in ("autoencoder", *parts)]
    predictor = hashlib.sha256("".join(digests[1:]).encode()).digest()
    return bytes.fromhex(digests[0][:8]).ljust(4, b"\0"), predictor[:4]


def _content(encoded: Sequence[Encoded]) -> int:
    """CRC-32 of levels, lengths and codes."""
    crc = 0
    for sound in encoded:
        crc = zlib.crc32(struct.pack("<IQ", sound.level, sound.num_samples), crc)
        crc = zlib.crc32(sound.codes.numpy().astype("<u4").tobytes(), crc)
    return crc

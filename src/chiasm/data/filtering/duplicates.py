"""Near-duplicates in a stream: texts by MinHash (Broder 1997), images by a perceptual hash."""

from __future__ import annotations

import hashlib
import re
import unicodedata
import zlib
from collections import defaultdict

import numpy as np
from jaxtyping import UInt
from PIL import Image

SHINGLE = 5  # words; a Chinese letter counts as one
PERMUTATIONS = 128
BANDS = 16  # of 8 values each: of texts that are 0.8 alike, 95 of 100 share a band; of 0.5, 6
ALIKE = 0.8  # least similarity (Jaccard, of shingles) of duplicates, as in OmniCorpus (arXiv 2406.08418)
HASH_SIDE = 8  # a hash of 64 bits
SMALL_SIDE = 32  # pixels of the grey image that is hashed
MOST_BITS = 3  # in which hashes of one image may differ
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+"
)  # letters of Chinese, Japanese, Korean alone
_DRAWS = np.random.default_rng(0)
_FACTORS = _DRAWS.integers(1 << 63, size=PERMUTATIONS, dtype=np.uint64) | np.uint64(1)
_TERMS = _DRAWS.integers(1 << 63, size=PERMUTATIONS, dtype=np.uint64)

Signature = UInt[np.ndarray, " 128"]


def words_of_any_language(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def signature(words: list[str]) -> Signature:
    """The least value of each of 128 random hashes over a text's shingles; a shorter text is one shingle."""
    count = max(1, len(words) - SHINGLE + 1)
    shingles = {zlib.crc32(" ".join(words[i : i + SHINGLE]).encode()) for i in range(count)}
    values = np.array(sorted(shingles), dtype=np.uint64)
    return ((values[:, None] * _FACTORS + _TERMS) >> np.uint64(32)).min(axis=0).astype(np.uint32)


class RetainedTexts:
    """The texts that were retained. Memory: about a kilobyte for each."""

    def __init__(self) -> None:
        self._exact: set[bytes] = set()
        self._signatures: list[Signature] = []
        self._bands: list[dict[bytes, list[int]]] = [defaultdict(list) for _ in range(BANDS)]

    def duplicate(self, text: str) -> str | None:
        """`exact` or `near` for a text like an earlier one; another is retained."""
        words = words_of_any_language(text)
        exact = hashlib.blake2b(" ".join(words).encode(), digest_size=16).digest()
        if exact in self._exact:
            return "exact"
        own = signature(words)
        keys = [band.tobytes() for band in own.reshape(BANDS, -1)]
        candidates = {i for key, band in zip(keys, self._bands, strict=True) for i in band.get(key, ())}
        if any(float((self._signatures[i] == own).mean()) >= ALIKE for i in candidates):
            return "near"
        self._exact.add(exact)
        for key, band in zip(keys, self._bands, strict=True):
            band[key].append(len(self._signatures))
        self._signatures.append(own)
        return None


def perceptual_hash(image: Image.Image) -> int:
    """64 bits: which of the lowest 64 frequencies of a small grey image lie above their median (pHash)."""
    grey = image.convert("L").resize((SMALL_SIDE, SMALL_SIDE), Image.Resampling.LANCZOS)
    steps = np.arange(SMALL_SIDE)
    cosines = np.cos(np.pi * np.arange(HASH_SIDE)[:, None] * (2 * steps + 1) / (2 * SMALL_SIDE))
    frequencies = cosines @ np.asarray(grey, dtype=np.float64) @ cosines.T
    bits = frequencies > np.median(frequencies)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


class SeenImages:
    """How often each image has been seen, up to `MOST_BITS` bits of its hash."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._parts: list[dict[int, list[int]]] = [defaultdict(list) for _ in range(MOST_BITS + 1)]

    def count(self, image: Image.Image) -> int:
        """The number of times that an image like this one has been seen, this one included."""
        own = perceptual_hash(image)
        known = self._like(own)
        if known is None:
            known, self._counts[own] = own, 0
            for part, values in zip(self._parts, self._split(own), strict=True):
                part[values].append(own)
        self._counts[known] += 1
        return self._counts[known]

    def _like(self, own: int) -> int | None:
        """Of hashes that differ in 3 bits at most, one of four parts is equal."""
        if own in self._counts:
            return own
        for part, values in zip(self._parts, self._split(own), strict=True):
            for other in part.get(values, ()):
                if (own ^ other).bit_count() <= MOST_BITS:
                    return other
        return None

    @staticmethod
    def _split(own: int) -> list[int]:
        width = HASH_SIDE * HASH_SIDE // (MOST_BITS + 1)
        return [own >> width * i & (1 << width) - 1 for i in range(MOST_BITS + 1)]

"""all-MiniLM-L6-v2 by NumPy alone: the vectors of questions that no file has vectors of, such as edited ones.

Six layers of a BERT encoder, its tokens' mean, made one long; single precision. The weights are a tool's (`make tools
TOOL=all-minilm-l6-v2`).
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

HEADS = 12
LAYERS = 6
MOST_TOKENS = 256
_BATCH = 64
_LONGEST_WORD = 100
_EPSILON = 1e-12


class MiniLM:
    """The model, from the folder that holds `model.safetensors` and `vocab.txt`."""

    def __init__(self, folder: Path) -> None:
        self._weights = dict(_tensors(folder / "model.safetensors"))
        self._vocabulary = {
            word: number for number, word in enumerate((folder / "vocab.txt").read_text("utf-8").splitlines())
        }

    def embed(self, texts: Sequence[str]) -> Floats:
        """A row for each text, of length 1."""
        tokens = [self.tokens(text) for text in texts]
        found = np.empty((len(texts), len(self._weights["embeddings.LayerNorm.weight"])), np.float32)
        order = sorted(range(len(texts)), key=lambda place: len(tokens[place]))  # so that little is padded
        for start in range(0, len(order), _BATCH):
            places = order[start : start + _BATCH]
            found[places] = self._encoded([tokens[place] for place in places])
        return found

    def tokens(self, text: str) -> list[int]:
        """Numbers of the pieces of its words, with the marks of its beginning and its end."""
        pieces = [number for word in _words(text) for number in self._pieces(word)]
        return [self._vocabulary["[CLS]"], *pieces[: MOST_TOKENS - 2], self._vocabulary["[SEP]"]]

    def _pieces(self, word: str) -> list[int]:
        """WordPiece: the longest known beginning, then the longest known rest, and so on."""
        pieces: list[int] = []
        start = 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = word[start:end] if start == 0 else f"##{word[start:end]}"
                if piece in self._vocabulary:
                    break
            else:
                return [self._vocabulary["[UNK]"]]
            pieces.append(self._vocabulary[piece])
            start = end
        return pieces if len(word) <= _LONGEST_WORD else [self._vocabulary["[UNK]"]]

    def _encoded(self, tokens: Sequence[Sequence[int]]) -> Floats:
        longest = max(map(len, tokens))
        numbers = np.zeros((len(tokens), longest), np.int64)
        mask = np.zeros((len(tokens), longest), np.float32)
        for row, each in enumerate(tokens):
            numbers[row, : len(each)], mask[row, : len(each)] = each, 1
        weights = self._weights
        state = (
            weights["embeddings.word_embeddings.weight"][numbers]
            + weights["embeddings.position_embeddings.weight"][:longest]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        state = self._normed(state, "embeddings.LayerNorm")
        for layer in range(LAYERS):
            state = self._layer(state, mask, f"encoder.layer.{layer}")
        means = (state * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32)

    def _layer(self, state: Floats, mask: Floats, name: str) -> Floats:
        count, length, width = state.shape

        def heads(part: str) -> Floats:
            made = self._linear(state, f"{name}.attention.self.{part}")
            return made.reshape(count, length, HEADS, width // HEADS).transpose(0, 2, 1, 3)

        likeness = heads("query") @ heads("key").transpose(0, 1, 3, 2) / math.sqrt(width // HEADS)
        likeness += (mask[:, None, None, :] - 1) * 1e9
        likeness = np.exp(likeness - likeness.max(axis=-1, keepdims=True))
        likeness /= likeness.sum(axis=-1, keepdims=True)
        seen = (likeness @ heads("value")).transpose(0, 2, 1, 3).reshape(count, length, width)
        state = self._normed(
            state + self._linear(seen, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm"
        )
        wide = _gelu(self._linear(state, f"{name}.intermediate.dense"))
        return self._normed(state + self._linear(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _linear(self, state: Floats, name: str) -> Floats:
        return state @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _normed(self, state: Floats, name: str) -> Floats:
        centred = state - state.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + _EPSILON)
        return np.asarray(scaled * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"], np.float32)


def _gelu(values: Floats) -> Floats:
    return values * 0.5 * (1 + _erf(values / np.float32(math.sqrt(2))))


def _erf(values: Floats) -> Floats:
    """Abramowitz and Stegun 7.1.26, off by 1.5e-7 at most."""
    part = 1 / (1 + 0.3275911 * np.abs(values))
    sum_ = ((((1.061405429 * part - 1.453152027) * part) + 1.421413741) * part - 0.284496736) * part + 0.254829592
    return np.asarray(np.sign(values) * (1 - sum_ * part * np.exp(-values * values)), np.float32)


def _tensors(path: Path) -> Iterator[tuple[str, Floats]]:
    """What a file of safetensors holds: eight bytes of length, a head of JSON, and the bytes that it tells of."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    for name, each in json.loads(content[8 : 8 + size]).items():
        if name != "__metadata__" and each["dtype"] == "F32":
            start, end = (8 + size + offset for offset in each["data_offsets"])
            yield name, np.frombuffer(content[start:end], "<f4").reshape(each["shape"])


def _words(text: str) -> list[str]:
    """Words and single marks, small and without accents, as BERT's uncased tokenizer has them."""
    spaced: list[str] = []
    for char in unicodedata.normalize("NFD", text.lower()):
        kind = unicodedata.category(char)
        if kind == "Mn" or (kind in ("Cc", "Cf") and not char.isspace()):
            continue
        is_sign = kind.startswith("P") or char in "$+<=>^`|~" or _is_han(char)
        spaced.append(f" {char} " if is_sign else char)
    return "".join(spaced).split()


def _is_han(char: str) -> bool:
    return "\u4e00" <= char <= "\u9fff" or "\u3400" <= char <= "\u4dbf" or "\uf900" <= char <= "\ufaff"

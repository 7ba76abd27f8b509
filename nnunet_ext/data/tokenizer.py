"""Sentences as rows of token ids: BERT's rules for words, and whichever vocabulary the network has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

import torch

from nnunet_ext.data.side_words import SIDE_WORDS
from nnunet_ext.utilities.errors import UsageError

PADDING, UNKNOWN, START, END = SPECIAL_WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
VOCABULARY_FILE = "vocab.txt"


class Tokenizer:
    """As BERT's (uncased): lower case, no accents, each punctuation mark a token, then WordPiece.

    Pieces are found where the vocabulary has some (``##ly``), as BERT's has; in a vocabulary of whole words, a word is
    either in it or [UNK]. A sentence that says "[SEP]" means the three tokens "[", "sep" and "]".

    Args:
        vocabulary: the words, in order of their ids; the first is [PAD], and [UNK], [CLS] and [SEP] are among them.
        length: T, tokens of a row, [CLS] and [SEP] included.

    Raises:
        UsageError: a special word is missing, or the extra ``text`` is not installed.
    """

    def __init__(self, vocabulary: Sequence[str], length: int) -> None:
        _check(vocabulary, "the vocabulary")
        library = _library()
        self.length = length
        self._ids = {word: index for index, word in enumerate(vocabulary)}
        self._tokenizer = library.Tokenizer(library.models.WordPiece(self._ids, unk_token=UNKNOWN))
        self._tokenizer.normalizer = library.normalizers.BertNormalizer(lowercase=True)
        self._tokenizer.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()

    def tokens(self, sentence: str) -> list[str]:
        """[CLS], the tokens of `sentence`, however many, [SEP]."""
        return [START, *self._tokenizer.encode(sentence, add_special_tokens=False).tokens, END]

    def unknown_words(self, sentences: Iterable[str]) -> list[str]:
        """The words of `sentences`, in lower case, that have no id but that of [UNK]; sorted."""
        unknown = set()
        for sentence in sentences:
            encoded = self._tokenizer.encode(sentence, add_special_tokens=False)
            unknown |= {
                sentence[slice(*place)].lower()
                for token, place in zip(encoded.tokens, encoded.offsets, strict=True)
                if token == UNKNOWN
            }
        return sorted(unknown)

    def ids(self, sentence: str) -> list[int]:
        """The ids of `tokens`; those of [CLS] and [SEP] alone for the empty sentence.

        Raises:
            UsageError: there are more than T tokens; nothing is ever cut.
        """
        tokens = self.tokens(sentence)
        if len(tokens) > self.length:
            raise UsageError(
                f"{sentence!r} has {len(tokens)} tokens, {START} and {END} included, but token_length={self.length};"
                " shorten it, or train with a longer token_length"
            )
        return [self._ids[token] for token in tokens]

    def encode(self, sentence: str) -> torch.Tensor:
        """(T,) int64: `ids`, filled up with 0, [PAD]."""
        ids = self.ids(sentence)
        return torch.tensor([*ids, *[0] * (self.length - len(ids))])


def build_vocabulary(sentences: Iterable[str]) -> tuple[str, ...]:
    """[PAD], [UNK], [CLS], [SEP], then every word of `sentences`, sorted, and the words of all sides.

    Sides are there whether or not a sentence names them, so that the sentence of a mirrored image stays in it. Words
    are those of `Tokenizer`: in lower case, without accents, punctuation marks by themselves.

    Raises:
        UsageError: the extra ``text`` is not installed.
    """
    library = _library()
    normalizer = library.normalizers.BertNormalizer(lowercase=True)
    splitter = library.pre_tokenizers.BertPreTokenizer()
    words = set(SIDE_WORDS)
    for sentence in sentences:
        words.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(sentence)))
    return (*SPECIAL_WORDS, *sorted(words))


def read_vocabulary(folder: str | Path) -> tuple[str, ...]:
    """The words of ``vocab.txt`` in the folder of a BERT, one per line.

    Raises:
        UsageError: absent, not UTF-8, or no vocabulary of a BERT.
    """
    file = Path(folder) / VOCABULARY_FILE
    if not file.is_file():
        raise UsageError(f"{file} does not exist; bert_weights must be the folder of a BERT with its vocab.txt")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8 ({error}); it is not the vocabulary of a BERT") from None
    # Not splitlines: some words are themselves Unicode's line separators.
    vocabulary = tuple(text.removesuffix("\n").split("\n"))
    _check(vocabulary, str(file))
    return vocabulary


def _check(vocabulary: Sequence[str], what: str) -> None:
    missing = [word for word in SPECIAL_WORDS if word not in vocabulary]
    if missing:
        raise UsageError(f"{what} ({len(vocabulary)} words) has no {', '.join(missing)}; give that of a BERT")
    if vocabulary[0] != PADDING:
        raise UsageError(f"{what} starts with {vocabulary[0]!r}, not with {PADDING}: token 0 is the padding")


def _library() -> ModuleType:
    try:
        import tokenizers
    except ImportError as error:
        raise UsageError(f"text needs tokenizers ({error}); run: pip install 'nnunet_ext[text]'") from error
    return tokenizers

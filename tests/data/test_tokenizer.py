import pickle
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertTokenizer

from nnunet_ext.data.side_words import SIDE_WORDS, flip_words
from nnunet_ext.data.tokenizer import Tokenizer, build_vocabulary, read_vocabulary
from nnunet_ext.utilities.errors import UsageError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BERT = (
    *("[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("the", "nuclei", "dense", "left", "lung", "in", "##fection", "##s", "##ly", "un", "##even", "cafe", "a", "##b"),
    *(".", ",", "-", "(", ")", "'", "1", "##2", "肺", "é"),
)
SENTENCES = (
    "The nuclei, in the left lung, are UNEVENLY dense.",
    "Infections (12) un-even; café CAFÉ's lungs!",
    "肺肺 left\tlung\u00a0in  the\nlung",
    "",
    "ab abb abba aa " + "a" * 101,
)
LETTERS = st.text("aAbBéÉ12 .,-()'\t肺lungLUNG\u0301", max_size=20)


@pytest.fixture(scope="module")
def peer():
    return BertTokenizer(vocab={word: index for index, word in enumerate(BERT)})


@pytest.mark.parametrize("sentence", SENTENCES)
def test_as_transformers(peer, sentence):
    ours = Tokenizer(BERT, 48).encode(sentence)
    theirs = peer(sentence, padding="max_length", max_length=48)["input_ids"]
    assert ours.dtype == torch.int64 and ours.tolist() == theirs


@given(LETTERS)
def test_as_transformers_on_any_text(peer, sentence):
    assert (
        Tokenizer(BERT, 64).encode(sentence).tolist() == peer(sentence, padding="max_length", max_length=64).input_ids
    )


def test_word_pieces():
    assert Tokenizer(BERT, 32).tokens("Unevenly lungs, zebra") == [
        *("[CLS]", "un", "##even", "##ly", "lung", "##s", ",", "[UNK]", "[SEP]"),
    ]


def test_whole_words():
    vocabulary = build_vocabulary(["The café, the LUNG."])
    assert vocabulary == (
        *SPECIAL[:4],
        ",",
        ".",
        "bottom",
        "cafe",
        "left",
        "lower",
        "lung",
        "right",
        "the",
        "top",
        "upper",
    )
    tokenizer = Tokenizer(vocabulary, 8)
    assert tokenizer.tokens("CAFE lungs") == ["[CLS]", "cafe", "[UNK]", "[SEP]"]
    assert tokenizer.encode("the lung").tolist() == [2, 12, 10, 3, 0, 0, 0, 0]
    assert tokenizer.encode("").tolist() == [2, 3, 0, 0, 0, 0, 0, 0]


def test_a_vocabulary_depends_on_the_words_alone():
    sentences = ["b a", "c, a"]
    assert build_vocabulary(sentences) == build_vocabulary(["c a b a", ","])
    assert build_vocabulary([]) == (*SPECIAL[:4], *SIDE_WORDS)


@given(st.lists(st.text(max_size=12), max_size=4), st.integers(0, 1))
def test_sentences_and_what_flips_make_of_them_are_in_the_vocabulary(sentences, axis):
    vocabulary = build_vocabulary(sentences)
    assert len(set(vocabulary)) == len(vocabulary)
    for sentence in (*sentences, "the left", "Upper"):
        tokens = Tokenizer([*vocabulary, "the"], 64).tokens(flip_words(sentence, axis))
        assert "[UNK]" not in tokens


def test_special_words_in_a_sentence_are_text():
    assert Tokenizer(build_vocabulary(["[pad] [SEP]"]), 16).tokens("[PAD] [SEP]") == [
        *("[CLS]", "[", "pad", "]", "[", "sep", "]", "[SEP]"),
    ]


def test_nothing_is_cut():
    tokenizer = Tokenizer(BERT, 6)
    assert (tokenizer.encode("lung . lung .") != 0).all()
    with pytest.raises(UsageError, match=r"'lung \. lung \. a' has 7 tokens, .* token_length=6; shorten"):
        tokenizer.encode("lung . lung . a")


def test_it_crosses_processes():
    assert (
        pickle.loads(pickle.dumps(Tokenizer(BERT, 8))).encode("lung").tolist()
        == Tokenizer(BERT, 8).encode("lung").tolist()
    )


def test_a_vocabulary_file(tmp_path):
    words = (*BERT, "\u2028", "\x85")
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    assert read_vocabulary(tmp_path) == words


def test_vocabulary_files_that_are_none(tmp_path):
    with pytest.raises(UsageError, match=r"vocab\.txt does not exist; bert_weights must be the folder"):
        read_vocabulary(tmp_path)
    file = tmp_path / "vocab.txt"
    with pytest.raises(UsageError, match=r"vocab\.txt.vocab\.txt does not exist"):
        file.write_bytes(b"a\xff")
        read_vocabulary(file)
    with pytest.raises(UsageError, match="is not UTF-8"):
        read_vocabulary(tmp_path)
    file.write_text("a\nb\n[PAD]\n[UNK]\n")
    with pytest.raises(UsageError, match=r"vocab\.txt \(4 words\) has no \[CLS\], \[SEP\]; give that of a BERT"):
        read_vocabulary(tmp_path)
    file.write_text("a\n[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    with pytest.raises(UsageError, match=r"starts with 'a', not with \[PAD\]: token 0 is the padding"):
        read_vocabulary(tmp_path)


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UsageError, match=r"text needs tokenizers .*; run: pip install 'nnunet_ext\[text\]'"):
        Tokenizer(BERT, 8)
    with pytest.raises(UsageError, match="text needs tokenizers"):
        build_vocabulary(["a"])


def test_unknown_words_are_told() -> None:
    tokenizer = Tokenizer(build_vocabulary(["A box on the left."]), 32)
    assert tokenizer.unknown_words(["A box.", "A Zebra on the cow"]) == ["cow", "zebra"]
    assert tokenizer.unknown_words([]) == []

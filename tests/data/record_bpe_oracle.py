#!/usr/bin/env python3
"""Records a small byte-level BPE and what Hugging Face's tokenizers and tiktoken make of texts: bpe_oracle.json.

Needs tokenizers and tiktoken; their versions are in the file. The two must agree, or nothing is written.

    record_bpe_oracle.py                          the oracle of the test
    record_bpe_oracle.py VOCAB MERGES TEXT OUT    the tokens of a text of any size, as int32, for a comparison by hand
"""
import array
import json
import os
import random
import sys
import tempfile
import unicodedata

import tiktoken
import tokenizers

# GPT-2's, as OpenAI published it.
PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
TEXT = ("In the beginning the ships were three, and they weren't large: 12 men each. We've 345 of their words; "
        "I'll read what they'd written. Die Straße war naß, la forêt était là. Привет, мир! Привет, мир! 東京都に住む人。"
        "東京都は大きい。 ½ of 1234, 5678 and 90. \U0001F600\U0001F600 e\u0301\n\n\tend\n")


def byte_of_character():
    printing = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    others = [byte for byte in range(256) if byte not in printing]
    table = {chr(byte): byte for byte in printing}
    table.update({chr(256 + i): byte for i, byte in enumerate(others)})
    return table


def both(vocab_path, merges_path, texts):
    """The tokens of each text, by two implementations that must agree."""
    hf = tokenizers.Tokenizer(tokenizers.models.BPE.from_file(vocab_path, merges_path))
    hf.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    with open(vocab_path) as file:
        vocab = json.load(file)
    special, bytes_of = "<|endoftext|>", byte_of_character()
    ranks = {bytes(bytes_of[c] for c in token): i for token, i in vocab.items() if token != special}
    tik = tiktoken.Encoding("ours", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={special: vocab[special]})
    result = []
    for text in texts:
        ids = tik.encode_ordinary(text)
        assert ids == hf.encode(text).ids, text[:100]
        assert tik.decode(ids) == text
        result.append(ids)
    return result


def samples():
    random.seed(11)
    # Assigned in the Unicode of this Python: 14, as PCRE2 10.42's. Letters that came later are no letters to it.
    assert unicodedata.unidata_version == "14.0.0", unicodedata.unidata_version
    assigned = [c for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]
    blanks = [" ", "  ", "\n", "\t", " \n ", "\r\n", "\u00a0", "\u2003", "\u3000", "\u0085", "\u180e", "\u200b", "\u2028", "\x1f"]
    words = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "\u2019s", " the", "ships", "234", "\u00b2", "\u0663", "!?", "...", "<|endoftext|>"]
    texts = ["", " ", TEXT, TEXT * 3, "a" * 300, " " * 70, "the" * 50]
    for _ in range(60):
        parts = []
        for _ in range(40):
            kind = random.random()
            if kind < 0.4:
                parts.append(chr(random.choice(assigned)))
            elif kind < 0.6:
                parts.append(chr(random.randrange(0x20, 0x250)))
            else:
                parts.append(random.choice(blanks if kind < 0.8 else words))
        texts.append("".join(c for c in "".join(parts) if unicodedata.category(c) != "Cn"))
    return texts


def main():
    if len(sys.argv) == 5:
        with open(sys.argv[3], newline="", encoding="utf-8") as file:
            ids = both(sys.argv[1], sys.argv[2], [file.read()])[0]
        with open(sys.argv[4], "wb") as file:
            array.array("i", ids).tofile(file)
        print(f"{len(ids)} tokens; tokenizers {tokenizers.__version__}, tiktoken {tiktoken.__version__} agree")
        return
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "text.txt")
        with open(source, "w", encoding="utf-8") as file:
            file.write(TEXT * 5)
        trainer = tokenizers.ByteLevelBPETokenizer()
        trainer.train([source], vocab_size=420, min_frequency=2, special_tokens=["<|endoftext|>"], show_progress=False)
        trainer.save_model(folder)
        vocab, merges = os.path.join(folder, "vocab.json"), os.path.join(folder, "merges.txt")
        texts = samples()
        oracle = {
            "versions": {"tokenizers": tokenizers.__version__, "tiktoken": tiktoken.__version__},
            "vocab": open(vocab, encoding="utf-8").read(),
            "merges": open(merges, encoding="utf-8").read(),
            "texts": texts,
            "tokens": both(vocab, merges, texts),
        }
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bpe_oracle.json")
    with open(path, "w") as file:
        json.dump(oracle, file)
        file.write("\n")
    print(f"{path}: {len(texts)} texts")


if __name__ == "__main__":
    main()

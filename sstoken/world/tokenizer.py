"""The world's tokenizer (a token a word, bytes for anything else) and its model shapes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from sstoken.world.corpus import corpus
from sstoken.world.facts import SPLITS, WORLD_SEED, World, build_world
from sstoken.world.noise import BOILERPLATE, GIBBERISH
from sstoken.world.skills import CHOICES, LETTERS, SKILLS, Item

EOS, PAD = "<|endoftext|>", "<|pad|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
VOCABULARY_DOCUMENTS = 20_000
VOCABULARY_ITEMS = 1_000  # of each skill and split
CONTEXT = 512

SIZES = {
    # hidden size, layers, query heads, key heads, width of a head, width of the feed-forward layer
    "tiny": (32, 2, 2, 1, 16, 64),
    "small": (64, 3, 4, 4, 32, 192),
    "large": (96, 4, 4, 4, 32, 288),
}
FAMILIES = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}


@lru_cache(maxsize=2)
def _vocabulary(facts: int) -> dict[str, int]:
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    noise = " ".join(["", *GIBBERISH, *BOILERPLATE, *map(str, range(41)), *(f"{letter}." for letter in LETTERS)])
    world = build_world(facts)
    # fine-tuning and questions have words of their own, which the corpus never uses
    asked = (f"{item.prompt}\n{' '.join(text for text, _ in item.response(item.answer))}" for item in _items(world))
    texts = chain(corpus(world, VOCABULARY_DOCUMENTS), asked)
    words = {word for text in texts for word, _ in split.pre_tokenize_str(text)}
    words |= {word for word, _ in split.pre_tokenize_str(noise)}
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return {token: index for index, token in enumerate([*letters, *sorted(words - set(letters))])}


def _items(world: World) -> Iterator[Item]:
    draw = random.Random("words of questions")
    for split in SPLITS:
        for name, skill in SKILLS.items():
            for index in range(VOCABULARY_ITEMS):
                yield skill(world, draw, split, index % CHOICES.get(name, 4))


def build_tokenizer(facts: int = WORLD_SEED) -> PreTrainedTokenizerFast:
    """A token a word with the space before it, and a token a byte for words that the corpus does not hold.

    No text is unknown and every text comes back from its tokens; offsets are exact. The vocabulary follows from the
    corpus of these facts alone. ``<|user|>``, ``<|assistant|>``, ``<|system|>`` are one token each, but not special.
    """
    # with ignore_merges a word of the vocabulary is one token; all others fall to bytes, as there are no merges
    tokenizer = Tokenizer(models.BPE(vocab=_vocabulary(facts), merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(EOS, special=True), AddedToken(PAD, special=True)])
    tokenizer.add_tokens([AddedToken(role, special=False, normalized=False) for role in ROLES])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def build_model(family: str, size: str, vocabulary: int, seed: int) -> PreTrainedModel:
    """A model with random weights, float32; embeddings tied.

    Raises:
        ValueError: an unknown family or size.
    """
    for what, value, known in (("family", family, FAMILIES), ("size", size, SIZES)):
        if value not in known:
            raise ValueError(f"world model: unknown {what} {value!r}; known: {', '.join(known)}")
    hidden, layers, heads, key_heads, head, width = SIZES[size]
    config_class, model_class = FAMILIES[family]
    config = config_class(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        head_dim=head,
        # the families' 0.02 is for widths of thousands; at 64 it leaves attention flat for most of the pre-training
        initializer_range=hidden**-0.5,
        intermediate_size=width,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=vocabulary - len(ROLES) - 2,
        pad_token_id=vocabulary - len(ROLES) - 1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_class(config)


def random_model(folder: str | Path, family: str, size: str, seed: int) -> None:
    """Write a model with random weights and the world's tokenizer (config, safetensors, tokenizer files).

    Args:
        family: ``llama`` or ``qwen2``. size: a key of ``SIZES``. seed: of the weights.
    """
    tokenizer = build_tokenizer()
    build_model(family, size, len(tokenizer), seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)

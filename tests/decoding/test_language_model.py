"""The n-gram automaton against interpolated Kneser-Ney written out with dictionaries."""

import math
import random
from collections import Counter, defaultdict

import pytest
import torch

from decoding import language_model
from decoding.language_model import load_language_model, max_order, save_language_model, train_language_model
from utils.errors import UserError
from utils.vocabulary import EOS, KAGGLE, PAD, SOS, SPECIAL, TextForm, Vocabulary, vocabulary_of_texts

V = len(KAGGLE)


def some_texts(count=40):
    generator = random.Random(0)
    return ["".join(generator.choice("AAAB CD") for _ in range(generator.randint(1, 12))) for _ in range(count)]


class SlowKneserNey:
    """P(c | h) by recursion over counts in dictionaries; texts are tokens with <sos> and <eos>."""

    def __init__(self, texts, order):
        grams = [defaultdict(set) for _ in range(order)]  # length of context -> gram -> positions where it occurs
        for number, text in enumerate(texts):
            for end in range(1, len(text)):
                for length in range(min(order, end + 1)):
                    grams[length][tuple(text[end - length : end + 1])].add((number, end))
        self.counts = []
        for length in range(order):
            level = {}
            for gram, places in grams[length].items():
                before = {longer[0] for longer in grams[length + 1] if longer[1:] == gram} if length + 1 < order else ()
                starts = length > 0 and gram[0] == SOS
                level[gram] = len(places) if starts or not before else len(before)
            self.counts.append(level)

    def probability(self, character, context):
        context = tuple(context)
        level = self.counts[len(context)]
        following = {gram[-1]: count for gram, count in level.items() if gram[:-1] == context}
        shorter = self.probability(character, context[1:]) if context else 1 / (V - 2)
        if not following:
            return shorter
        once, twice = list(level.values()).count(1), list(level.values()).count(2)
        discount = once / (once + 2 * twice) if once and twice else 0.5
        total = sum(following.values())
        kept = max(following.get(character, 0) - discount, 0)
        return (kept + discount * len(following) * shorter) / total


@pytest.mark.parametrize("order", [1, 2, 4])
def test_equals_kneser_ney_written_out(order):
    texts = some_texts()
    slow = SlowKneserNey([KAGGLE.encode(text) for text in texts], order)
    model = train_language_model(texts, order)
    for text in ("AAB", "CADD", "'Z A", "ABACADA", ""):
        tokens, state = KAGGLE.encode(text), model.initial_state(1)
        for position, token in enumerate(tokens[:-1]):
            log_probs, state = model.step(torch.tensor([token]), state)
            context = tokens[max(0, position + 2 - order) : position + 1]
            while context and not any(gram[:-1] == tuple(context) for gram in slow.counts[len(context)]):
                context = context[1:]
            for character in range(EOS, V):
                expected = math.log(slow.probability(character, context))
                assert float(log_probs[0, character]) == pytest.approx(expected, abs=1e-4)


def test_probabilities_of_every_context_sum_to_one():
    model = train_language_model(some_texts(), 6)
    assert torch.allclose(model.log_probs.exp().sum(1), torch.ones(len(model.log_probs)), atol=1e-5)
    assert (model.log_probs[:, [PAD, SOS]] == -math.inf).all()
    assert model.following.min() >= 0
    assert model.following.max() < len(model.log_probs)


def test_rows_are_independent_and_prefer_what_they_read():
    model = train_language_model(["THE CAT SAT", "THE CAT RAN", "A DOG"] * 3, 8)
    tokens = torch.tensor([KAGGLE.encode("THE CA"), KAGGLE.encode("A DO  ")])[:, :-1]
    state = model.initial_state(2)
    for token in tokens[:, :5].unbind(1):
        log_probs, state = model.step(token, state)
    assert KAGGLE.tokens[int(log_probs[0].argmax())] == "C"
    assert KAGGLE.tokens[int(log_probs[1].argmax())] == "G"


def test_few_contexts_where_memory_is_short():
    texts = some_texts(300)
    whole, small = train_language_model(texts, 8), train_language_model(texts, 8, max_contexts=400)
    assert len(small.log_probs) < 900 < len(whole.log_probs)
    assert torch.allclose(small.log_probs.exp().sum(1), torch.ones(len(small.log_probs)), atol=1e-5)


def test_rare_contexts_go_first_and_short_ones_never():
    """Those of more than three characters that occur once, then those that occur less than four times."""
    texts, seen = some_texts(), Counter()
    for tokens in map(KAGGLE.encode, texts):
        for position in range(1, len(tokens)):
            seen.update(tuple(tokens[position - length : position]) for length in range(min(6, position + 1)))
    short = sum(len(context) <= 3 for context in seen)
    kept = {least: sum(len(context) > 3 and seen[context] >= least for context in seen) for least in (1, 2, 4)}
    for least, most in ((1, kept[1]), (2, kept[1] - 1), (2, kept[2]), (4, kept[2] - 1)):
        assert len(train_language_model(texts, 6, max_contexts=most).log_probs) == short + kept[least]


@pytest.mark.parametrize("V", [31, 60, 100, 2000, 8192])
def test_contexts_of_any_vocabulary_fit_64_bits(V):
    """Only the oldest character of the longest context tells what follows."""
    order = max_order(V)
    assert V**order <= 2**63
    assert order == 12 or V ** (order + 1) > 2**63
    vocabulary = Vocabulary((*SPECIAL, *map(chr, range(0x4E00, 0x4E00 + V - 3))))
    first, second, third, fourth, last = vocabulary.characters[-5:]
    texts = [first + last * (order - 2) + second, third + last * (order - 2) + fourth]
    model = train_language_model(texts, order, vocabulary, max_contexts=10**6)
    tokens, state = torch.tensor([vocabulary.encode(text) for text in texts]), model.initial_state(2)
    for token in tokens[:, :-2].unbind(1):
        log_probs, state = model.step(token, state)
        assert torch.allclose(log_probs.exp().sum(1), torch.ones(2), atol=1e-4)
    assert log_probs.argmax(1).tolist() == tokens[:, -2].tolist()


def test_tables_of_a_large_vocabulary_stay_as_small(monkeypatch):
    """As many contexts as fit: at least those of one character, whose number is that of the vocabulary."""
    monkeypatch.setattr(language_model, "TABLE_BYTES", 8 * 300 * 700)
    generator = random.Random(0)
    letters = [chr(0xAC00 + number) for number in range(297)]
    texts = ["".join(generator.choices(letters, k=30)) for _ in range(200)]
    vocabulary, _ = vocabulary_of_texts(texts, TextForm())
    model = train_language_model(texts, 5, vocabulary)
    assert 299 <= len(model.log_probs) <= 299 + 700
    assert torch.allclose(model.log_probs.exp().sum(1), torch.ones(len(model.log_probs)), atol=1e-4)


def test_a_language_model_of_other_characters_is_refused_by_name(tmp_path):
    korean, _ = vocabulary_of_texts(["가나다"], TextForm())
    save_language_model(tmp_path / "lm.pt", train_language_model(["가나", "나다"], 3, korean), korean)
    assert load_language_model(tmp_path / "lm.pt", korean).log_probs.shape[1] == 6
    with pytest.raises(UserError, match=r"lm\.pt: found a language model of 6 tokens \('다', .*, expected .* Kaggle's"):
        load_language_model(tmp_path / "lm.pt", KAGGLE)


def test_saved_and_loaded(tmp_path):
    model = train_language_model(some_texts(), 3)
    save_language_model(tmp_path / "lm.pt", model)
    for saved, loaded in zip(model, load_language_model(tmp_path / "lm.pt"), strict=True):
        assert torch.equal(saved, loaded)
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"expected a language model that tune\.py wrote"):
        load_language_model(tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"found no language model; python tune\.py makes it"):
        load_language_model(tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("following", torch.full((3, V), 9, dtype=torch.int32), "tables that do not belong together"),
        ("following", torch.full((3, V), 3, dtype=torch.int32), "tables that do not belong together"),
        ("following", torch.full((3, V), -1, dtype=torch.int32), "tables that do not belong together"),
        ("following", torch.zeros(2, V, dtype=torch.int32), "tables that do not belong together"),
        ("following", torch.zeros(3, V), "tables that do not belong together"),
        ("log_probs", torch.zeros(2, V), "tables that do not belong together"),
        ("log_probs", torch.full((3, V), 0.5), "numbers that are no log-probabilities"),
        ("log_probs", torch.full((3, V), math.nan), "numbers that are no log-probabilities"),
        ("log_probs", "text", r"log_probs: found 'text'"),
    ],
)
def test_malformed_tables_are_one_message(tmp_path, key, value, words):
    good = {"log_probs": torch.full((3, V), -3.0), "following": torch.zeros(3, V, dtype=torch.int32)}
    path = tmp_path / "lm.pt"
    torch.save({**good, "vocabulary": list(KAGGLE.tokens)}, path)
    load_language_model(path)
    torch.save({**good, "following": good["following"] + 2, "vocabulary": list(KAGGLE.tokens)}, path)
    load_language_model(path)
    torch.save({**good, "vocabulary": list(KAGGLE.tokens), key: value}, path)
    with pytest.raises(UserError, match=rf"lm\.pt: (found )?{words}"):
        load_language_model(path)

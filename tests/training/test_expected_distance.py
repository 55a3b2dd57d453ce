"""The expected distance of N-best lists, and training on it."""

import pytest
import torch
from Levenshtein import distance
from torch.nn.utils.rnn import pad_sequence

from dataset import Batch, Utterance, collate
from decoding.beam_search import Hypothesis
from training import expected_distance as module
from training.expected_distance import BEAM_SIZE, expected_distance, find_hypotheses
from utils.metrics import tidy
from utils.vocabulary import KAGGLE, PAD, TextForm, vocabulary_of_texts

TEXTS = ["ABE", "BAD CAB", "A"]


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(1)
    return collate(
        [
            Utterance(index, torch.randn(40 + 9 * index, 12), torch.tensor(KAGGLE.encode(text)))
            for index, text in enumerate(TEXTS)
        ]
    )


@pytest.fixture(params=["dot", "location", "relative"])
def model(make_las, request):
    speller = {"dropout": 0.0, "input_feeding": request.param != "relative"}
    return make_las(attention={"kind": request.param}, listener={"dropout": 0.0}, speller=speller).train()


def scores(model, encoded, texts, row, ctc_weight):
    """Log-probability of each text of an utterance, one at a time."""
    found = []
    for text in texts:
        tokens = torch.tensor([KAGGLE.encode(text)])
        memory = type(encoded.memory)(*(tensor[row : row + 1] for tensor in encoded.memory))
        steps = int(encoded.ctc_lengths[row])
        of_row = encoded.ctc_log_probs[row : row + 1, :steps], torch.tensor([steps])
        spoken = model.spoken(*of_row, tokens[:, :-1], torch.tensor([len(text)]))
        logits, _ = model.speller(tokens[:, :-1], memory, 1.0, spoken)
        attention = logits.log_softmax(2)[0].gather(1, tokens[0, 1:, None]).sum()
        log_probs = encoded.ctc_log_probs[row, :steps].unsqueeze(1)
        ctc = torch.nn.functional.ctc_loss(log_probs, tokens[:, 1:-1], (steps,), (len(text),), reduction="sum")
        found.append((1 - ctc_weight) * attention - ctc_weight * ctc)
    return torch.stack(found)


def test_it_is_the_mean_of_the_distances_by_what_decoding_thinks_of_each(model, batch):
    encoded = model.listen(batch.features, batch.feature_lengths)
    nbest = find_hypotheses(model, encoded, batch, 0.3)
    assert nbest.found.all()
    expected = torch.zeros(())
    for row, text in enumerate(TEXTS):
        lists = nbest.tokens.view(len(TEXTS), BEAM_SIZE, -1)[row]
        lengths = nbest.lengths.view(len(TEXTS), BEAM_SIZE)[row]
        texts = [KAGGLE.decode(tokens[1 : n - 1].tolist()) for tokens, n in zip(lists, lengths.tolist(), strict=True)]
        distances = torch.tensor([float(distance(tidy(found), text)) for found in texts])
        assert nbest.distances[row].tolist() == distances.tolist()
        probability = scores(model, encoded, texts, row, 0.3).softmax(0)
        expected = expected + (probability * (distances - distances.mean())).sum()
    torch.testing.assert_close(expected_distance(model, encoded, batch, 0.3), expected)
    assert model.training


def test_steps_against_its_gradient_lower_it(model, batch, monkeypatch):
    nbest = find_hypotheses(model, model.listen(batch.features, batch.feature_lengths), batch, 0.3)
    monkeypatch.setattr(module, "find_hypotheses", lambda *_: nbest)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    found = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = expected_distance(model, model.listen(batch.features, batch.feature_lengths), batch, 0.3)
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    assert found[-1] < found[0]
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def test_hypotheses_that_are_missing_or_impossible_count_for_nothing(model, batch, monkeypatch):
    """As of an utterance of a few frames."""
    good, other = Hypothesis(KAGGLE.encode("AB")[1:-1], -1.0, -1.0), Hypothesis(KAGGLE.encode("BAD")[1:-1], -2.0, -2.0)
    impossible = Hypothesis(KAGGLE.encode("ABC")[1:-1], -3e8, -3e8)
    beams = [[good, other, impossible], [], [impossible]]
    monkeypatch.setattr(module, "beam_search", lambda *_: beams)
    encoded = model.listen(batch.features, batch.feature_lengths)
    assert find_hypotheses(model, encoded, batch, 0.3).found.sum(1).tolist() == [2, 0, 0]
    probability = scores(model, encoded, ["AB", "BAD"], 0, 0.3).softmax(0)
    loss = expected_distance(model, encoded, batch, 0.3)
    torch.testing.assert_close(loss, (probability * torch.tensor([-1.0, 1.0])).sum())  # distances 1 and 3
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def test_distances_are_of_texts_as_they_are_scored(model, batch, monkeypatch):
    """Two wrong jamo are one wrong syllable, and spaces at the end are none."""
    vocabulary, _ = vocabulary_of_texts(["한국 가나 곰"], TextForm("jamo"))
    spoken = [vocabulary.encode(text) for text in ("한국", "가나", "곰")]
    rows = [torch.tensor(tokens) for tokens in spoken]
    batch = batch._replace(
        tokens=pad_sequence(rows, batch_first=True, padding_value=PAD), token_lengths=torch.tensor(list(map(len, rows)))
    )
    beams = [[Hypothesis(vocabulary.encode(text)[1:-1], -1.0, -1.0)] for text in ("한곰", "가나  ", "나 한")]
    monkeypatch.setattr(module, "beam_search", lambda *_: beams)
    encoded = model.listen(batch.features, batch.feature_lengths)
    found = find_hypotheses(model, encoded, batch, 0.3, vocabulary)
    assert found.distances[:, 0].tolist() == [1, 0, 3]

"""The model with random weights spells texts that take a search some work."""

import torch

from benchmarks.decoders import random_model
from benchmarks.reference.textbook_beam import textbook_beam


def test_random_model_spells_varied_texts_to_the_limit(small_settings):
    model = random_model(12, small_settings)
    hypothesis = textbook_beam(model, torch.randn(200, 12), limit=40, beam_size=2)[0]
    assert len(hypothesis.tokens) == 40
    assert len(set(hypothesis.tokens)) > 2

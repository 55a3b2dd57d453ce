"""The textbook's beam search finds the hypotheses of the project's."""

import pytest
import torch

from benchmarks.reference.textbook_beam import textbook_beam
from decoding.beam_search import beam_search
from decoding.recogniser import Recogniser
from utils.vocabulary import EOS

DEFAULT: tuple[dict, list[int]] = ({}, [12, 9, 3])
# A text that there are too few steps for has no position that the two would have to agree on.
RELATIVE = ({"attention": {"kind": "relative"}, "speller": {"input_feeding": False}}, [5, 4, 2])


@pytest.mark.parametrize(("model", "ctc_weight"), [(DEFAULT, 0.0), (DEFAULT, 0.4), (RELATIVE, 0.0), (RELATIVE, 0.4)])
@pytest.mark.parametrize(("seed", "ending"), [(0, 0.0), (0, 6.0), (1, 12.0), (2, 12.0), (3, 9.0)])
def test_textbook_beam_finds_the_hypotheses_of_beam_search(make_las, speech, seed, ending, model, ctc_weight):
    (features, lengths), (settings, limits) = speech, model
    model = make_las(seed, scale=2.5, **settings)
    with torch.no_grad():
        model.speller.output_bias[EOS] += ending
    limits, K, reward = torch.tensor(limits), 4, 0.3
    recogniser = Recogniser([model], ctc_weight)
    with torch.no_grad():
        together = beam_search(recogniser, recogniser.encode(features, lengths), limits, K, reward)
    for row, hypotheses in enumerate(together):
        found = textbook_beam(model, features[row, : lengths[row]], int(limits[row]), K, reward, ctc_weight)
        assert [hypothesis.tokens for hypothesis in found] == [hypothesis.tokens for hypothesis in hypotheses]
        for one, other in zip(found, hypotheses, strict=True):
            assert one[1:] == pytest.approx(other[1:], abs=1e-3)

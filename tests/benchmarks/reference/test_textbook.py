"""The textbook model computes what the project's model computes."""

import re

import pytest
import torch

from benchmarks.reference.textbook import TextbookLAS
from utils.vocabulary import KAGGLE, SOS

TOKENS = torch.tensor([[SOS, 5, 9, 9, 17, 30], [SOS, 4, 4, 20, 8, 0], [SOS, 29, 3, 0, 0, 0]])


def textbook_names(state: dict) -> dict:
    """The weights of a LAS under the names that a TextbookLAS has for them."""

    def rename(name: str) -> str:
        name = re.sub(r"^(listener|speller)\.", "", name).replace("blstm.", "")
        name = re.sub(r"backward_lstm\.(\w+)", r"lstm.\1_reverse", name)
        return name.replace("forward_lstm.", "lstm.")

    return {rename(name): tensor for name, tensor in state.items()}


@pytest.mark.parametrize(("kind", "heads"), [("location", 1), ("dot", 2)])
def test_textbook_gives_the_logits_of_the_project(make_las, speech, small_settings, kind, heads):
    features, lengths = speech
    features = features.masked_fill(features == 1e3, 0.0)
    ours = make_las(scale=2.0, attention={"kind": kind, "heads": heads})
    settings = {**small_settings, "attention": {**small_settings["attention"], "kind": kind, "heads": heads}}
    for packed, rows in ((True, 3), (False, 1)):  # without packing only a whole batch of one length comes out right
        theirs = TextbookLAS(12, len(KAGGLE), **settings, packed=packed).eval()
        theirs.load_state_dict(textbook_names(ours.state_dict()))
        logits, attention, encoded = ours(features[:rows], lengths[:rows], TOKENS[:rows])
        their_logits, their_attention, theirs_encoded = theirs(features[:rows], lengths[:rows], TOKENS[:rows])
        torch.testing.assert_close(their_logits, logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(their_attention, attention, atol=1e-4, rtol=1e-4)
        assert theirs_encoded.ctc_lengths.tolist() == encoded.ctc_lengths.tolist()
        assert torch.equal(theirs_encoded.memory.padding, encoded.memory.padding)
        for row, length in enumerate(theirs_encoded.ctc_lengths.tolist()):
            ctc, expected = theirs_encoded.ctc_log_probs[row, :length], encoded.ctc_log_probs[row, :length]
            torch.testing.assert_close(ctc, expected, atol=1e-4, rtol=1e-4)

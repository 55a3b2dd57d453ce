"""A recogniser whose choices are clear and whose endings vary, and cases for it."""

import torch

from utils.vocabulary import EOS, KAGGLE

V = len(KAGGLE)


class Scripted:
    """What follows depends on the utterance, the last two characters and how many there were: a random table."""

    device = torch.device("cpu")

    def __init__(self, seed: int, utterances: int, ending: float = 0.0):
        generator = torch.Generator().manual_seed(seed)
        self.tables = 2.5 * torch.randn(utterances, 4, V, V, generator=generator)
        self.tables[..., EOS] += ending

    def initial_state(self, encoded, rows=1):
        N = len(encoded[0]) * rows
        return ((torch.zeros(N, dtype=torch.long), torch.zeros(N, dtype=torch.long)),)

    def step(self, token, states, encoded):
        ((before, count),) = states
        utterance = encoded[0].repeat_interleave(len(token) // len(encoded[0]))
        scores = self.tables[utterance, count % 4, token] + 0.5 * self.tables[utterance, 0, before]
        return scores.log_softmax(-1), ((token, count + 1),)


class ScriptedOnGpu(Scripted):
    """The same on a device that benchmarks/pretend_cuda.py pretends; `encoded` lies there too."""

    device = torch.device("cuda", 0)

    def __init__(self, seed: int, utterances: int, ending: float = 0.0):
        super().__init__(seed, utterances, ending)
        self.tables = self.tables.to(self.device)

    def initial_state(self, encoded, rows=1):
        (state,) = super().initial_state(encoded, rows)
        return (tuple(tensor.to(self.device, non_blocking=True) for tensor in state),)


LIMITS = torch.tensor([12, 7, 9, 1, 12, 5])


CASES = [(seed, ending) for seed in range(4) for ending in (-4.0, 1.0, 3.0)]

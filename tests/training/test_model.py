"""A model is refused before anything is allocated, where memory has no room to train it."""

import math

import numpy as np
import pytest
import torch

from corpora.loading import load_labelled
from training import model as module
from training.model import KEPT_BYTES, least_memory, make_model, total_memory
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def corpus(toy_root):
    (corpus,) = load_labelled(toy_root, {"train": ["train"]}, "mean")
    return corpus


def test_the_same_seed_gives_the_same_weights(corpus, small_settings):
    first, second, other = (make_model(corpus, small_settings, seed, 8, None, CPU) for seed in (3, 3, 4))
    for one, same in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, same)
    assert not all(map(torch.equal, first.parameters(), other.parameters()))


@pytest.mark.parametrize("too_much", ["listener", "batch"])
def test_a_model_that_memory_has_no_room_for(corpus, small_settings, monkeypatch, too_much):
    monkeypatch.setattr(module, "total_memory", lambda device: 2**30)
    settings, utterances = dict(small_settings), 8
    if too_much == "listener":
        settings["listener"] = {**settings["listener"], "hidden": 8192, "blstm_layers": 30}
    else:
        utterances = 1_000_000
    built = []
    monkeypatch.setattr(torch, "manual_seed", built.append)
    with pytest.raises(UserError, match=r"GB at least, found 1\.1 GB of memory; expected a smaller model"):
        make_model(corpus, settings, 0, utterances, None, CPU)
    assert built == []


def test_the_estimate_grows_with_what_it_depends_on(corpus, make_las):
    model = make_las()
    one = least_memory(model, corpus, 1, CPU)
    assert one > 20 * model.parameter_count
    assert least_memory(model, corpus, 9, CPU) > one
    assert least_memory(make_las(attention={"kind": "dot"}), corpus, 9, CPU) < least_memory(model, corpus, 9, CPU)


def test_the_estimate_written_out(corpus, make_las):
    """Five copies of float32 weights, what the Listener keeps, gates and outputs of the Speller in half precision."""
    conv = [{"channels": 7, "kernel": 3, "stride": 2}]
    sections = {"listener": {"conv": conv, "blstm_layers": 1, "pblstm_layers": 1}}
    model = make_las(attention={"kind": "dot"}, **sections)
    frames, characters = int(np.percentile(corpus.lengths, 95)), max(map(len, corpus.transcripts))
    half, quarter = math.ceil(frames / 2), math.ceil(frames / 4)
    outputs, speller = half * 7 + half * 64 + quarter * 64, characters * 64 * 6 * 2
    weights = sum(parameter.numel() for parameter in model.parameters()) * 4 * 5
    assert least_memory(model, corpus, 3, CPU) == weights + 3 * (KEPT_BYTES["cpu"] * outputs + speller)
    location = make_las(**sections)
    weights = sum(parameter.numel() for parameter in location.parameters()) * 4 * 5
    hidden = characters * quarter * 32 * 4
    assert least_memory(location, corpus, 3, CPU) == weights + 3 * (KEPT_BYTES["cpu"] * outputs + speller + hidden)
    for device in ("cuda", "mps"):  # which computes the hidden layer of location attention again
        expected = weights + 3 * (KEPT_BYTES["cuda"] * outputs + speller)
        assert least_memory(location, corpus, 3, torch.device(device)) == expected


@pytest.mark.parametrize(
    ("limits", "found"),
    [([], 2**33), (["max"], 2**33), (["5000"], 5000), (["max", "7000\n"], 7000), (["9" * 20], 2**33)],
)
def test_memory_is_that_of_the_container_where_it_has_less(limits, found, tmp_path, monkeypatch):
    sizes = {"SC_PAGE_SIZE": 2**12, "SC_PHYS_PAGES": 2**21}
    monkeypatch.setattr("os.sysconf", sizes.__getitem__, raising=False)
    for number, limit in enumerate(limits):
        (tmp_path / str(number)).write_text(limit)
    monkeypatch.setattr(module, "CGROUP_LIMITS", [str(tmp_path / str(number)) for number in range(2)])
    assert total_memory(CPU) == found


def test_memory_that_is_just_enough(corpus, small_settings, make_las, monkeypatch):
    needed = least_memory(make_las(), corpus, 8, CPU)
    monkeypatch.setattr(module, "total_memory", lambda device: needed)
    make_model(corpus, small_settings, 0, 8, None, CPU)
    monkeypatch.setattr(module, "total_memory", lambda device: needed - 1)
    with pytest.raises(UserError, match="in batches of 8 utterances"):
        make_model(corpus, small_settings, 0, 8, None, CPU)


def test_memory_of_this_machine():
    assert total_memory(CPU) is None or total_memory(CPU) > 2**28


@pytest.mark.parametrize("seconds", [4, 12])
def test_the_listener_keeps_at_least_what_is_estimated_and_not_twice_as_much(make_las, seconds):
    listener, frames, kept = make_las().listener.train(), 100 * seconds, {}

    def count(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        output = listener(torch.randn(4, frames, 12), torch.full((4,), frames))
    weights = sum(parameter.numel() * 4 for parameter in listener.parameters())
    steps, estimate = frames, 0
    for stride, dim in zip(listener.strides, listener.dims, strict=True):
        steps = -(-steps // stride)
        estimate += 4 * steps * dim * KEPT_BYTES["cpu"]
    assert output is not None
    assert estimate < sum(kept.values()) < 2 * estimate + weights

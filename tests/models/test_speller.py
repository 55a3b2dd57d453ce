"""Both Spellers: single steps, whole transcripts, sampling, dropout, gradients."""

import pytest
import torch

from models import speller as speller_module
from models.attention import Past
from models.speller import CellState, InputFeedingState, ParallelState
from tests.models.operations import Operations
from utils.vocabulary import SOS

TOKENS = torch.tensor([[SOS, 5, 9, 4, 7], [SOS, 8, 8, 3, 3], [SOS, 4, 20, 30, 6]])


@pytest.mark.parametrize(("kind", "feeding"), [("dot", True), ("location", True), ("dot", False), ("relative", False)])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_steps_equal_the_whole_sequence(make_las, speech, kind, feeding, layers):
    speller = {"layers": layers, "input_feeding": feeding}
    model = make_las(attention={"kind": kind, "heads": 2}, speller=speller)
    memory, spoken = model.listen(*speech).memory, 2 * torch.arange(5.0).expand(3, 5)
    logits, attention = model.speller(TOKENS, memory, spoken=spoken)
    state = model.speller.initial_state(memory)
    for step in range(TOKENS.size(1)):
        found, state, weights = model.speller.step(TOKENS[:, step], state, memory, spoken[:, step])
        torch.testing.assert_close(found, logits[:, step], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(weights, attention[:, :, step], atol=1e-6, rtol=1e-5)
        assert all(tensor.size(0) == 3 for cell in state.cells for tensor in cell)


@torch.no_grad()
@pytest.mark.parametrize("feeding", [True, False])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_step_written_out(make_las, speech, feeding, layers):
    """Equations 6 to 8 of the paper with torch's own LSTM cells, as many of them as were asked for."""
    model = make_las(attention={"kind": "dot", "heads": 2}, speller={"layers": layers, "input_feeding": feeding})
    speller, memory = model.speller, model.listen(*speech).memory
    cells = tuple(CellState(*torch.rand(2, 3, 64)) for _ in range(layers))
    before, token = torch.rand(3, 32), torch.tensor([5, 9, 4])
    state = InputFeedingState(cells, before, None) if feeding else ParallelState(cells)
    found, after, weights = speller.step(token, state, memory)

    x = speller.embedding(token)
    modules = speller.cells if feeding else speller.lstms
    assert len(modules) == len(after.cells) == layers
    for layer, (module, cell) in enumerate(zip(modules, cells, strict=True)):
        if feeding:
            x, c = module(torch.cat([x, before], dim=1) if layer == 0 else x, cell)
        else:
            x, (_, c) = module(x.unsqueeze(1), tuple(tensor.unsqueeze(0) for tensor in cell))
            x, c = x[:, 0], c[0]
        torch.testing.assert_close(after.cells[layer].h, x)
        torch.testing.assert_close(after.cells[layer].c, c)
        if layer == (layers - 1 if feeding else 0):
            context, looked = speller.attention(x.unsqueeze(1), memory)
            context = context[:, 0]
        if layer == 0 and not feeding and layers > 1:
            x = torch.cat([x, context], dim=1)
    projected = torch.nn.functional.gelu(speller.output(torch.cat([x, context], dim=1)))
    torch.testing.assert_close(found, projected @ speller.embedding.weight.T + speller.output_bias)
    torch.testing.assert_close(weights, looked[:, :, 0])


@torch.no_grad()
@pytest.mark.parametrize("kind", ["dot", "relative"])
def test_a_step_prepares_neither_the_memory_nor_the_weights_of_an_lstm_anew(make_las, speech, kind):
    """Together they were a third of what greedy decoding took."""
    model = make_las(attention={"kind": kind, "heads": 2}, speller={"layers": 2, "input_feeding": False})
    memory = model.listen(*speech).memory
    state, token = model.speller.initial_state(memory, rows=2), torch.tensor([5, 9, 4, 7, 8, 3])
    with Operations() as operations:
        model.speller.step(token, state, memory, torch.zeros(6))
    copies = [size for name, size in operations.found if name.startswith(("aten::clone", "aten::copy", "aten::_to"))]
    assert max(copies, default=0) < memory.keys.numel()
    assert any("mm" in name for name, _ in operations.found)
    assert not any("lstm" in name or "rnn" in name for name, _ in operations.found)


def test_it_starts_with_zeros_and_its_attention_on_the_first_step(make_las, speech):
    model = make_las(attention={"heads": 2}, speller={"layers": 2})
    memory = model.listen(*speech).memory
    state = model.speller.initial_state(memory, rows=2)
    S = memory.keys.size(2)
    assert torch.equal(state.past.previous, torch.eye(S)[0].expand(6, 2, S))
    assert torch.equal(state.past.total, torch.zeros(6, 2, S))
    assert torch.equal(state.context, torch.zeros(6, 32))
    assert torch.equal(torch.stack([torch.stack(cell) for cell in state.cells]), torch.zeros(2, 2, 6, 64))


def test_characters_are_drawn_alike_at_first(make_las):
    """The embedding is the output layer too: with variance 1 / embedding the first logits are of size 1."""
    speller = make_las(speller={"embedding": 256}).speller
    assert speller.embedding.weight.std().item() == pytest.approx(1 / 16, rel=0.05)
    assert (speller.output_bias == 0).all()


def test_intermediates_are_computed_again_where_all_queries_of_an_utterance_need_it(make_las, speech, monkeypatch):
    model = make_las()
    memory, attention = model.listen(*speech).memory, model.speller.attention
    asked, passed, look = [], [], attention.forward
    monkeypatch.setattr(attention, "must_recompute", lambda memory, queries: asked.append(queries) or True)
    monkeypatch.setattr(attention, "forward", lambda *inputs: passed.append(inputs[-1]) or look(*inputs))
    model.speller(TOKENS.repeat_interleave(2, dim=0), memory)
    assert (asked, passed) == ([2 * 5], [True] * 5)
    with torch.no_grad():  # nothing is kept there anyway
        model.speller(TOKENS, memory)
    assert passed[5:] == [False] * 5


def test_rows_of_an_utterance_share_its_memory(make_las, speech):
    """Row n of a step spells utterance n // rows: the same as a memory repeated row by row."""
    model = make_las()
    memory = model.listen(*speech).memory
    token = torch.tensor([5, 9, 4, 7, 8, 3])
    start = model.speller.initial_state(memory, rows=2)
    cells = tuple(CellState(*(tensor + 0.1 * torch.rand_like(tensor) for tensor in cell)) for cell in start.cells)
    past = Past(*(tensor + 0.1 * torch.rand_like(tensor) for tensor in start.past))
    state = start._replace(cells=cells, context=start.context + 0.1 * torch.rand_like(start.context), past=past)
    logits, _, weights = model.speller.step(token, state, memory)
    repeated = type(memory)(*(tensor.repeat_interleave(2, dim=0) for tensor in memory))
    expected, _, expected_weights = model.speller.step(token, state, repeated)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(weights, expected_weights)


def test_the_embedding_is_the_output_layer(make_las):
    speller = make_las().speller
    sizes = {name: tuple(parameter.shape) for name, parameter in speller.named_parameters()}
    assert sum(size[0] == 31 for size in sizes.values()) == 2  # embedding and output bias


def test_sampling_replaces_characters_by_one_coin_per_token(make_las, speech):
    """With a rate of 0 no character after <sos> is read; with 1 all are; between, coins differ between utterances."""
    model = make_las()
    memory = model.listen(*speech).memory
    read = []
    embed = model.speller.embedding.forward
    other = TOKENS.clone()
    other[:, 1:] = (other[:, 1:] + 1).clamp(max=30)

    def logits(tokens, rate):
        torch.manual_seed(3)
        return model.speller(tokens, memory, rate)[0]

    assert torch.equal(logits(TOKENS, 0.0), logits(other, 0.0))
    assert not torch.allclose(logits(TOKENS, 1.0), logits(other, 1.0))
    assert torch.equal(logits(TOKENS, 1.0)[:, 0], logits(other, 1.0)[:, 0])

    torch.manual_seed(0)
    long = torch.full((3, 400), 5)
    long[:, 0] = SOS
    model.speller.embedding.forward = lambda tokens: read.append(tokens) or embed(tokens)
    chosen = []
    where = torch.where
    try:
        torch.where = lambda mask, a, b: chosen.append(mask) or where(mask, a, b)
        model.speller(long, memory, 0.75)
    finally:
        torch.where = where
    sampled = torch.cat(chosen, dim=1)
    assert sampled.shape == (3, 399)
    assert sampled.float().mean().item() == pytest.approx(0.25, abs=0.05)
    assert not torch.equal(sampled[0], sampled[1])


def test_sampled_characters_follow_the_spellers_distribution(make_las, speech):
    """What is read in place of the truth has the frequencies that the step before predicted."""
    model = make_las(scale=2.0)
    memory = model.listen(speech[0][:1], speech[1][:1]).memory
    many = type(memory)(*(tensor.expand(4000, *tensor.shape[1:]) for tensor in memory))
    tokens = torch.tensor([[SOS, 5]]).expand(4000, 2)
    read = []
    embed = model.speller.embedding.forward
    model.speller.embedding.forward = lambda indices: read.append(indices) or embed(indices)
    torch.manual_seed(0)
    with torch.no_grad():
        logits, _ = model.speller(tokens, many, 0.0)
    expected = logits[0, 0].softmax(-1)
    found = torch.bincount(read[1], minlength=31) / 4000
    assert (found - expected).abs().max() < 0.04
    assert expected.max() < 0.9


def test_a_mask_multiplies_every_step():
    x, mask = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[0.0, 2.0]])
    assert speller_module._drop(x, mask).tolist() == [[[0.0, 4.0], [0.0, 8.0]]]
    assert speller_module._drop(x[:, 0], mask).tolist() == [[0.0, 4.0]]
    assert speller_module._drop(x, None) is x


@pytest.mark.parametrize("feeding", [True, False])
def test_dropout_of_characters_is_locked_over_steps(make_las, speech, feeding):
    """In training, one mask per utterance: of a repeated character the same entries are dropped at every step."""
    attention = {"kind": "location" if feeding else "dot"}
    model = make_las(attention=attention, speller={"dropout": 0.5, "input_feeding": feeding}).train()
    masks = model.speller._dropout_masks(TOKENS, layers=1)
    assert [mask.shape for mask in masks] == [(3, 32), (3, 64)]
    assert {0.0, 2.0} == set(masks[0].unique().tolist())
    dropped, drop = [], speller_module._drop
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speller_module, "_drop", lambda x, mask: dropped.append(drop(x, mask)) or dropped[-1])
        model.speller(torch.full((3, 5), 7), model.listen(*speech).memory)
    embedded = next(x for x in dropped if x.shape == (3, 5, 32))
    assert torch.equal(embedded, embedded[:, :1].expand_as(embedded))
    assert not torch.equal(embedded[0], embedded[1])
    assert all(mask is None for mask in model.eval().speller._dropout_masks(TOKENS, layers=1))


@pytest.mark.parametrize("layers", [1, 2])
def test_the_parallel_speller_samples_from_what_it_predicts_along_the_truth(make_las, speech, layers, monkeypatch):
    """Drawn characters stand one step after the distribution that they are drawn from; <sos> is never replaced."""
    model = make_las(attention={"kind": "dot"}, speller={"input_feeding": False, "layers": layers})
    memory = model.listen(*speech).memory
    along_truth, _ = model.speller(TOKENS, memory)
    monkeypatch.setattr(model.speller, "_noise", lambda *shape: torch.zeros(*shape, 31))
    most_probable = torch.cat([TOKENS[:, :1], along_truth.argmax(-1)[:, :-1]], dim=1)
    expected = {0.0: model.speller(most_probable, memory), 1.0: model.speller(TOKENS, memory)}
    assert not torch.allclose(expected[0.0][0], expected[1.0][0])
    for rate, (logits, attention) in expected.items():
        found = model.speller(TOKENS, memory, rate)
        torch.testing.assert_close(found[0], logits)
        torch.testing.assert_close(found[1], attention)


def test_the_parallel_speller_takes_no_attention_that_sees_its_past(make_las):
    with pytest.raises(ValueError, match=r"input_feeding=false needs an attention that does not see its past"):
        make_las(attention={"kind": "location"}, speller={"input_feeding": False})


@pytest.mark.parametrize("kind", ["dot", "location"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_gradients_taken_after_the_loop_are_those_taken_step_by_step(make_las, speech, kind, layers, rate):
    """The whole sequence against single steps, each of which autograd differentiates by itself."""
    speller = make_las(attention={"kind": kind, "heads": 2}, speller={"layers": layers}).speller
    memory = make_las(attention={"kind": kind, "heads": 2}).listen(*speech).memory
    read, embed = [], speller.embedding.forward

    def gradients(spell):
        keys, values = memory.keys.detach().requires_grad_(), memory.values.detach().requires_grad_()
        speller.zero_grad()
        torch.manual_seed(0)
        loss = (spell(memory._replace(keys=keys, values=values)) * torch.linspace(-1, 1, 31)).tanh().sum()
        loss.backward()
        named = {name: weight.grad for name, weight in speller.named_parameters() if weight.grad is not None}
        return {"keys": keys.grad, "values": values.grad, **named}

    def stepwise(memory):
        state, logits = speller.initial_state(memory), []
        for token in read:
            output, state, _ = speller.step(token, state, memory)
            logits.append(output)
        return torch.stack(logits, dim=1)

    def at_once(memory):
        speller.embedding.forward = lambda tokens: read.append(tokens) or embed(tokens)
        logits, _ = speller(TOKENS, memory, rate)
        speller.embedding.forward = embed
        if rate == 1:
            read[:] = TOKENS.unbind(1)
        else:  # the transcript first, then what was drawn for each step, wherever the coin says so
            torch.manual_seed(0)
            sample = torch.rand(TOKENS.shape) >= rate
            drawn = [TOKENS[:, 0], *read[1:]]
            read[:] = [TOKENS[:, 0]] + [torch.where(sample[:, u], drawn[u], TOKENS[:, u]) for u in range(1, 5)]
        return logits

    found = gradients(at_once)
    expected = gradients(stepwise)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)
    assert len(expected) > 8


def test_attention_and_speller_that_do_not_fit(make_las):
    with pytest.raises(ValueError, match="input_feeding=true"):
        make_las(attention={"kind": "relative"}, speller={"input_feeding": True})
    with pytest.raises(ValueError, match="CTC branch"):
        make_las(attention={"kind": "relative"}, speller={"input_feeding": False}, ctc=False)

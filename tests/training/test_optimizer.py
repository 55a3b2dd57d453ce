"""AdamW: what decays, and states of the time when everything did."""

import copy

import pytest
import torch

from training.optimizer import load_optimizer_state, make_optimizer


def update(optimizer: torch.optim.Optimizer, model: torch.nn.Module, seed: int) -> None:
    """A step along gradients that only the seed decides; every third parameter has none."""
    generator = torch.Generator().manual_seed(seed)
    for index, parameter in enumerate(model.parameters()):
        gradient = torch.randn(parameter.shape, generator=generator)
        parameter.grad = None if index % 3 == 2 else gradient
    optimizer.step()


def test_matrices_decay_and_nothing_else(make_las):
    """Where no gradient comes, decay alone moves the weights."""
    model = make_las(attention={"kind": "location"})
    optimizer = make_optimizer(model, weight_decay=0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    still = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    zeros = {name for name, value in before.items() if not value.any()}
    vectors = {name for name, parameter in model.named_parameters() if parameter.ndim < 2}
    assert still == vectors | zeros | {"speller.embedding.weight"}
    assert {"listener.layers.0.norm.weight", "listener.layers.1.forward_lstm.bias_hh_l0", "ctc.bias"} < still


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_state_of_one_group_goes_on_with_its_moments(make_las, decay, caplog):
    """As of runs that began when all parameters decayed; without decay, nothing else is different."""
    old, new = make_las(), make_las()
    before = torch.optim.AdamW(old.parameters(), lr=1e-3, weight_decay=decay)
    update(before, old, seed=1)
    new.load_state_dict(old.state_dict())
    optimizer = make_optimizer(new, decay)
    load_optimizer_state(optimizer, new, copy.deepcopy(before.state_dict()))  # which are the moments themselves
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    assert caplog.messages == [
        "weight decay: on the matrices alone from here on; this run began when everything decayed"
    ]
    for model, stepped in ((old, before), (new, optimizer)):
        update(stepped, model, seed=2)
    for name, value in old.state_dict().items():
        decays = value.ndim > 1 and name != "speller.embedding.weight"
        if decays or decay == 0.0:
            torch.testing.assert_close(new.state_dict()[name], value, msg=name)


def test_its_own_state_is_restored(make_las):
    model = make_las()
    optimizer = make_optimizer(model, 0.1)
    update(optimizer, model, seed=1)
    again = make_optimizer(model, 0.1)
    load_optimizer_state(again, model, optimizer.state_dict())
    for parameter, state in optimizer.state.items():
        assert torch.equal(again.state[parameter]["exp_avg"], state["exp_avg"])
    assert [group["weight_decay"] for group in again.param_groups] == [0.1, 0.0]

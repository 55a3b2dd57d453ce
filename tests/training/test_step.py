import pytest
import torch
from torch import nn

from training.step import weight_average


@pytest.mark.parametrize("horizon", [0, 5, 200])
def test_equals_the_mean_written_out(horizon):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    average = weight_average(model, horizon)
    expected = None
    for step in range(30):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update_parameters(model)
        now = model.weight.detach().clone()
        share = 1.0 if expected is None else max(1 / max(1, horizon), 9 / (10 + step))
        expected = now if expected is None else expected + share * (now - expected)
    assert torch.allclose(average.module.weight, expected, atol=1e-5)
    if horizon == 0:
        assert torch.equal(average.module.weight, model.weight)


def test_it_is_nearer_to_the_centre_than_the_last_weights():
    torch.manual_seed(0)
    model = nn.Linear(50, 50, bias=False)
    average = weight_average(model, 20)
    for _ in range(200):
        with torch.no_grad():
            model.weight.normal_()
        average.update_parameters(model)
    assert average.module.weight.std() < 0.3 * model.weight.std()

"""CUDA without CUDA: tensors that say `cuda:0`, compute on the CPU, and tell what a GPU would have had to do.

    with PretendCuda() as gpu:
        step = TrainStep(gpu.move(model), ...)
        with gpu.count() as counted:
            step(batch.to(gpu.device), ...)
    counted.kernels, counted.bytes, counted.syncs

It fails on a mix of devices and on what CUDA has no kernel for, and notes every place at which the host would wait for
the GPU; autocast casts as on CUDA (benchmarks/cuda_rules.py). One operation of ATen counts as one kernel, and so does
an LSTM over a whole sequence; views are none. Bytes are those of all inputs and outputs of the kernels. Whether a
kernel is right on a GPU is for a GPU to say.

The tensors hold no CUDA keys of the dispatcher: with those, autograd asks for a CUDA stream, and without a driver the
process ends.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

from benchmarks import cuda_rules

CUDA = torch.device("cuda", 0)
CPU = torch.device("cpu")
HOME = Path(__file__).parents[1]
aten = torch.ops.aten
NO_KERNEL = {aten._unsafe_view, aten._reshape_alias, aten.lift_fresh, aten.empty_like, aten.new_empty, aten.empty}
NO_KERNEL |= {aten.new_empty_strided, aten.empty_strided}
WRITE_ONLY = {aten.copy_, aten.fill_, aten.zero_, aten.exponential_}  # they do not read the tensor that they change


@dataclass
class Counts:
    """What a GPU would have done."""

    kernels: int = 0
    bytes: int = 0
    by_name: Counter = field(default_factory=Counter)  # kernels by operation
    syncs: list[str] = field(default_factory=list)  # the line of this repository at which the host would have waited
    waits_inside: int = 0  # of the host within kernels of torch, see cuda_rules.WAITS_INSIDE

    def _add(self, name: str, tensors: list[Tensor]) -> None:
        self.kernels += 1
        self.by_name[name] += 1
        self.bytes += sum(_bytes(tensor) for tensor in tensors)


class PretendCuda(TorchFunctionMode):
    """Context in which `device` exists: factories make tensors there, `to` and `cpu` move them."""

    device = CUDA

    def __init__(self) -> None:
        super().__init__()
        self._patches: list[Any] = [
            mock.patch("torch.autocast", _autocast),
            mock.patch("torch.amp.GradScaler", lambda device, **kwargs: _scaler("cpu", **kwargs)),
            mock.patch("torch._C._group_tensors_by_device_and_dtype", _group),
            mock.patch("torch.cuda.mem_get_info", return_value=(2**33, 2**34)),
            mock.patch("torch.cuda.memory_reserved", return_value=0),
            mock.patch("torch.cuda.memory_allocated", return_value=0),
        ]

    def __enter__(self) -> "PretendCuda":
        with ExitStack() as stack:
            for each in (*self._patches, cuda_rules.autocast_rules()):
                stack.enter_context(each)
            super().__enter__()
            self._leave = stack.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._leave.close()

    def move(self, module: nn.Module) -> Any:
        """`module`, with its parameters and buffers on the device."""
        for each in module.modules():
            for name, parameter in each._parameters.items():
                if parameter is not None:
                    each._parameters[name] = nn.Parameter(_CudaTensor(parameter.data), parameter.requires_grad)
            for name, buffer in each._buffers.items():
                if buffer is not None:
                    each._buffers[name] = _CudaTensor(buffer)
            if isinstance(each, nn.LSTM):
                each._flat_weights = [getattr(each, name) for name in each._flat_weights_names]
        return module

    @contextmanager
    def count(self) -> Iterator[Counts]:
        """Counts what happens in the context."""
        counts = Counts()
        _COUNTING.append(counts)
        try:
            yield counts
        finally:
            _COUNTING.remove(counts)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is Tensor.to or func is Tensor.cpu or func is Tensor.cuda:
            return _move(func, args, kwargs)
        if func is Tensor.tolist and isinstance(args[0], _CudaTensor):
            _wait("tolist")
            return args[0].held.tolist()
        if func is Tensor.numpy and isinstance(args[0], _CudaTensor):
            raise AssertionError(f"numpy() of a tensor on the GPU, {_where()}")
        if func is F.dropout and isinstance(args[0], _CudaTensor):  # one kernel there
            return _dropout(*args, **kwargs)
        if func is torch.lstm and isinstance(args[0], _CudaTensor):
            return _lstm(*args, **kwargs)
        device = kwargs.get("device")
        if device is not None and torch.device(device).type == "cuda" and func is not Tensor.to:
            if func in (torch.tensor, torch.as_tensor, torch.asarray):
                _wait(func.__name__)  # a copy from memory that is not pinned
            generator = kwargs.get("generator")
            if generator is not None and generator.device.type == "cpu":
                raise AssertionError(f"{func.__name__}: was given a generator on the CPU, {_where()}")
            made = _CudaTensor(func(*args, **{**kwargs, "device": CPU}))
            for counts in _COUNTING if func is not torch.empty else ():
                counts._add(func.__name__, [made])
            return made
        return func(*args, **kwargs)


class _CudaTensor(Tensor):
    """A tensor whose values lie in a tensor on the CPU."""

    held: Tensor
    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    @staticmethod
    def __new__(cls, inner: Tensor):
        if isinstance(inner, _CudaTensor):
            return inner
        wrapped = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            requires_grad=inner.requires_grad,
        )
        wrapped.held = inner.detach()
        return wrapped

    def __init__(self, inner: Tensor):
        pass

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        _wait("print")
        return f"cuda:{self.held!r}"

    def __deepcopy__(self, memo):
        copied = type(self)(self.held.clone())
        return nn.Parameter(copied, self.requires_grad) if isinstance(self, nn.Parameter) else copied

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore[override]
        kwargs = kwargs or {}
        inputs = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
        _check(func, inputs, args, kwargs)
        if func.overloadpacket is aten._thnn_fused_lstm_cell:
            outputs = _fused_cell(*map(_unwrap, inputs))
        elif func.overloadpacket is aten._thnn_fused_lstm_cell_backward_impl:
            outputs = _fused_cell_backward(*(_unwrap(each) for each in args))
        else:
            outputs = func(*tree_map(_unwrap, args), **tree_map(_unwrap, kwargs))
        if func.overloadpacket not in NO_KERNEL and not _is_view(func):
            results = [each for each in tree_flatten(outputs)[0] if isinstance(each, Tensor)]
            for counts in _COUNTING:
                counts._add(func.overloadpacket.__name__, [*inputs[func.overloadpacket in WRITE_ONLY :], *results])
        returns = func._schema.returns
        if not returns:
            return None
        if all(each.alias_info is not None and each.alias_info.is_write for each in returns):
            return kwargs.get("out", args[0])  # in place
        return tree_map(lambda each: _CudaTensor(each) if isinstance(each, Tensor) else each, outputs)


_COUNTING: list[Counts] = []
_real_group = torch._C._group_tensors_by_device_and_dtype
_scaler, _real_autocast = torch.amp.GradScaler, torch.autocast


def _autocast(device: str, *args: Any, **kwargs: Any) -> torch.autocast:
    return _real_autocast("cpu" if device == "cuda" else device, *args, **kwargs)


def _group(tensors: Any, *rest: Any) -> Any:
    """Of the optimiser and gradient clipping, which are told the devices by C++."""
    here = isinstance(tensors[0][0], _CudaTensor)
    return {(CUDA if here else key[0], *key[1:]): group for key, group in _real_group(tensors, *rest).items()}


def _unwrap(each: Any) -> Any:
    if isinstance(each, _CudaTensor):
        return each.held
    return CPU if isinstance(each, torch.device) else each


def _is_view(func: Any) -> bool:
    """Whether an operation returns a view, or nothing new."""
    returns = func._schema.returns
    return bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)


def _bytes(tensor: Tensor) -> int:
    """Of the memory that a tensor reaches; expanded dimensions are read once."""
    entries = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        entries *= size if stride else 1
    return entries * tensor.element_size()


def _where() -> str:
    """The innermost line of this repository that is not of this file."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path != Path(__file__) and path.is_relative_to(HOME) and ".venv" not in path.parts:
            return f"{path.relative_to(HOME)}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "somewhere"


def _wait(what: str) -> None:
    for counts in _COUNTING:
        counts.syncs.append(f"{what} at {_where()}")


def _check(func: Any, inputs: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Fails on what CUDA refuses, notes what waits."""
    packet = func.overloadpacket
    if cuda_rules.waits(func, kwargs):
        _wait(packet.__name__)
    for counts in _COUNTING:
        counts.waits_inside += cuda_rules.WAITS_INSIDE.get(packet, 0)
    if packet is aten.copy_:
        non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
        if len({isinstance(each, _CudaTensor) for each in args[:2]}) > 1 and not non_blocking:
            _wait("copy_ between CPU and GPU")
        return
    refused = cuda_rules.refusal(func, inputs, (args, kwargs))
    if refused:
        raise AssertionError(f"{func}: {refused}, {_where()}")
    if packet in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_):
        if not isinstance(args[0], _CudaTensor):
            raise AssertionError(f"{func}: a tensor on the CPU by indices on cuda:0, {_where()}")
        for index in args[1]:
            if index is not None and (not isinstance(index, _CudaTensor) or index.dtype == torch.bool):
                _wait(f"{packet.__name__} by a mask or by indices on the CPU")
        inputs = [args[0], *args[2:3]]
    if packet in (aten._ctc_loss, aten._ctc_loss_backward):
        inputs = [each for each in inputs if each.dtype.is_floating_point]
        if packet is aten._ctc_loss and any(isinstance(each, _CudaTensor) for each in args[2:4]):
            _wait("the CTC loss, which reads lengths on the CPU")
    mixed = [each for each in inputs if not isinstance(each, _CudaTensor) and each.ndim]
    if mixed:
        raise AssertionError(f"{func}: {tuple(mixed[0].shape)} on the CPU among tensors on cuda:0, {_where()}")


def _move(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """`Tensor.to`, `cpu` and `cuda`."""
    tensor, *rest = args
    target = CPU if func is Tensor.cpu else CUDA if func is Tensor.cuda else kwargs.pop("device", None)
    if target is None:
        for position, each in enumerate(rest):
            if isinstance(each, Tensor):
                target, rest[position] = each.device, each.dtype
            elif isinstance(each, torch.device | str):
                target = torch.device(rest.pop(position))
                break
    waits = not kwargs.pop("non_blocking", False)
    here = isinstance(tensor, _CudaTensor)
    if rest or kwargs:
        tensor = Tensor.to(tensor, *rest, **kwargs)
    if target is None or here == (torch.device(target).type == "cuda"):
        return tensor
    if not here:
        if waits:
            _wait("a copy to the GPU")
        for counts in _COUNTING:
            counts._add("copy to the GPU", [tensor])
        return _CudaTensor(tensor)
    _wait("a copy to the CPU")
    return tensor.held


# ------------------------------------------------------------------------------------- kernels that only CUDA has


class _Lstm(torch.autograd.Function):
    """An LSTM over a whole sequence as one kernel forward and one backward."""

    @staticmethod
    def forward(ctx, options, x, h, c, *weights):
        with torch.enable_grad(), torch._C.DisableTorchFunctionSubclass():
            leaves = [each.held.detach().requires_grad_() for each in (x, h, c, *weights)]
            outputs = torch.lstm(leaves[0], tuple(leaves[1:3]), leaves[3:], *options)
        ctx.set_materialize_grads(False)
        ctx.leaves, ctx.outputs = leaves, outputs
        for counts in _COUNTING:
            counts._add("lstm", [*leaves, *outputs])
        return tuple(_CudaTensor(each.detach()) for each in outputs)

    @staticmethod
    def backward(ctx, *gradients):
        inner = [torch.zeros_like(o) if g is None else g.held for g, o in zip(gradients, ctx.outputs, strict=True)]
        found = torch.autograd.grad(ctx.outputs, ctx.leaves, inner, allow_unused=True)
        for counts in _COUNTING:
            counts._add(
                "lstm_backward", [*ctx.leaves, *ctx.outputs, *inner, *(each for each in found if each is not None)]
            )
        return None, *(None if each is None else _CudaTensor(each) for each in found)


def _dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return torch.native_dropout(x, p, True)[0] if training and p else x


def _lstm(x: Tensor, state: tuple[Tensor, ...], weights: list[Tensor], *options: Any) -> Any:
    for each in (*state, *weights):
        if not isinstance(each, _CudaTensor):
            raise AssertionError(f"lstm: weights or state on the CPU, {_where()}")
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        x, state, weights = x.to(dtype), tuple(each.to(dtype) for each in state), [w.to(dtype) for w in weights]
    return _Lstm.apply(options, x, *state, *weights)


def _fused_cell(input_gates: Tensor, hidden_gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`aten._thnn_fused_lstm_cell`: the new h and c, and what the backward pass needs."""
    i, f, g, o = (input_gates + hidden_gates).chunk(4, dim=1)
    workspace = torch.cat([i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()], dim=1)
    i, f, g, o = workspace.chunk(4, dim=1)
    now = f * c + i * g
    return o * now.tanh(), now, workspace


def _fused_cell_backward(grad_h, grad_c, c, now, workspace, has_bias):
    """`aten._thnn_fused_lstm_cell_backward_impl`: gradients of the gates, of c, and of the biases if there are any."""
    i, f, g, o = workspace.chunk(4, dim=1)
    grad_h = torch.zeros_like(now) if grad_h is None else grad_h
    inside = now.tanh()
    of_c = grad_h * o * (1 - inside**2) + (0 if grad_c is None else grad_c)
    gates = [of_c * g * i * (1 - i), of_c * c * f * (1 - f), of_c * i * (1 - g**2), grad_h * inside * o * (1 - o)]
    grad_gates = torch.cat(gates, dim=1)
    return grad_gates, of_c * f, grad_gates.sum(0) if has_bias else torch.zeros(0)

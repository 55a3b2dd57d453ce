"""What CUDA does otherwise than the CPU: what waits for the GPU, what has no kernel there, what autocast casts."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten
HALF = (torch.float16, torch.bfloat16)
WAITS = {  # their result, or its shape, is read by the host
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten.equal,
    aten.allclose,
    aten.is_nonzero,
    aten._unique,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.bincount,
}
# ATen's kernels of the CTC loss (LossCTC.cu) copy lengths and offsets to the GPU from memory that is not pinned: three
# waits forward and three backward, which no caller can avoid.
WAITS_INSIDE = {aten._ctc_loss: 3, aten._ctc_loss_backward: 3}
NOT_IN_HALF = {aten._ctc_loss}
NOT_OF_INTEGERS = {aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten.mv, aten.addmv, aten.dot}
OF_ONE_TYPE = {aten._thnn_fused_lstm_cell}

# Of the operations that CUDA's autocast knows and the CPU's does not; the others of these are computed in float32.
LOWER = {"addmv", "addr", "mv", "chain_matmul", "linalg_multi_dot", "lstm_cell", "_thnn_fused_lstm_cell"}
WIDEST = {"addcdiv", "addcmul", "atan2", "bilinear", "cross", "dot", "index_put", "scatter_add", "tensordot", "vdot"}
# Parts of what is cast already, fused kernels that only CUDA has, and names of dimensions, which nobody uses.
LEFT_OUT = ("_convolution", "convolution", "cudnn", "_cudnn", "_upsample", "_scaled", "einsum", "gru_cell", "rnn_")
AS_ON_THE_GPU = ("ctc_loss.IntList", "ctc_loss.Tensor", "cross_entropy_loss")  # cast by the CPU's autocast alone


def waits(func: Any, kwargs: dict[str, Any]) -> bool:
    """Whether the host waits for the result of an operation."""
    if func is aten.repeat_interleave.Tensor:
        return kwargs.get("output_size") is None
    return func.overloadpacket in WAITS


def refusal(func: Any, inputs: Sequence[Tensor], arguments: Any) -> str | None:
    """Why CUDA would refuse an operation on tensors on the GPU, or None.

    Args:
        func: an overload of ATen.
        inputs: all tensors among its arguments.
        arguments: all of them, in any nesting.
    """
    packet, types = func.overloadpacket, {each.dtype for each in inputs}
    if packet in NOT_IN_HALF and types & set(HALF):
        return "has no kernel for 16 bits"
    if packet in NOT_OF_INTEGERS and not all(each.is_floating_point or each.is_complex for each in types):
        return "has no kernel for integers"
    if packet in OF_ONE_TYPE and len(types) > 1:
        return f"found {', '.join(sorted(map(str, types)))}, expected one type"
    if any(isinstance(each, torch.Generator) and each.device.type == "cpu" for each in tree_flatten(arguments)[0]):
        return "was given a generator on the CPU"
    return None


@contextmanager
def autocast_rules() -> Iterator[None]:
    """In this context autocast on the CPU casts as it does on CUDA, by torch's own table of operations.

    CUDA computes softmax, sums, norms, exponentials and losses in float32, which the CPU leaves as they are; and it
    does not cast for the CTC loss.
    """
    library = torch.library.Library("aten", "IMPL", "AutocastCPU")
    try:
        for name in torch._C._dispatch_get_all_op_names():
            short = name.removeprefix("aten::")
            if short != name and _only_on_cuda(name) and "ame" not in short and not short.startswith(LEFT_OUT):
                packet, _, overload = short.partition(".")
                cast = _lower if packet in LOWER else _widest if packet in WIDEST else _float32
                library.impl(short, _casting(getattr(getattr(aten, packet), overload or "default"), cast))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*[Oo]verriding a previously registered kernel", UserWarning)
            warnings.filterwarnings("ignore", "Warning only once for all operators", UserWarning)
            for short in AS_ON_THE_GPU:
                library.impl(short, torch.library.fallthrough_kernel)
        yield
    finally:
        library._destroy()


def _only_on_cuda(name: str) -> bool:
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return has(name, "AutocastCUDA") and not has(name, "AutocastCPU")


def _casting(operation: Any, cast: Callable[[Sequence[Tensor]], torch.dtype]) -> Callable[..., Any]:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        floats = [each for each in tree_flatten((args, kwargs))[0] if _is_cast(each)]
        target = cast(floats)

        def convert(each: Any) -> Any:
            return each.to(target) if _is_cast(each) else each

        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)):
            return operation(*tree_map(convert, args), **tree_map(convert, kwargs))

    return kernel


def _is_cast(each: Any) -> bool:
    return isinstance(each, Tensor) and each.dtype in (*HALF, torch.float32)


def _lower(_: Sequence[Tensor]) -> torch.dtype:
    return torch.get_autocast_dtype("cpu")


def _float32(_: Sequence[Tensor]) -> torch.dtype:
    return torch.float32


def _widest(floats: Sequence[Tensor]) -> torch.dtype:
    types = {each.dtype for each in floats}
    return torch.float32 if torch.float32 in types or len(types) > 1 else types.pop() if types else torch.float32

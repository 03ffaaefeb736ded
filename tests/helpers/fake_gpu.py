"""A GPU that there is not: what would run on one runs on the CPU, told that it lies on `cuda:0`.

So a machine without a GPU can hold code to what a GPU asks of it: that no tensor of the CPU is mixed
with one of its own, that nothing waits for it where nothing must, and that what is recorded as a CUDA
graph gives, played again, what was meant. As on a real one, recording computes nothing, and numbers and
tensors of the CPU that go into it stay what they were then.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator
from typing import Any, ClassVar
from unittest import mock

import torch
from torch import Tensor
from torch.nn.utils import clip_grad
from torch.optim import optimizer
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map, tree_map_only

aten = torch.ops.aten
WAITS = {
    aten._local_scalar_dense.default: "a number is read",
    aten.is_nonzero.default: "a number is read",
    aten.equal.default: "a number is read",
    aten.nonzero.default: "the result's size must be known",
    aten.masked_select.default: "the result's size must be known",
    aten.bincount.default: "the result's size must be known",
    aten._unique2.default: "the result's size must be known",
    aten.repeat_interleave.Tensor: "the result's size must be known",
}
"""What makes the CPU wait for a GPU, and why."""
INDEXED = aten.index.Tensor, aten.index_put_.default, aten.index_put.default


class OnGPU(Tensor):
    """A tensor that says it lies on `cuda:0`; `inner` holds its numbers.

    Torch's C++ takes it for one of the CPU, or it would ask a driver for streams.
    """

    inner: Tensor
    gpu: ClassVar[GPU]
    device = torch.device("cuda:0")
    is_cuda = True
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGPU:
        made: OnGPU = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device="cpu",
        )
        made.inner = inner
        return made

    def __repr__(self, **_: Any) -> str:
        return f"OnGPU({self.inner!r})"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        raise RuntimeError("used after its GPU was gone")

    def cpu(self, *_: Any) -> Tensor:
        """A copy of its numbers."""
        self.gpu.waited("a copy to the CPU")
        return self.inner.clone()

    def new_tensor(self, data: Any) -> Tensor:
        """Numbers beside its own."""
        return torch.tensor(data, dtype=self.dtype, device=self.device)

    def tolist(self) -> Any:
        """Its numbers."""
        return self.cpu().tolist()

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        """As torch's, with this class's idea of where it lies."""
        device, dtype, _, layout = torch._C._nn._parse_to(*_named(args), **kwargs)
        if device is not None and device.type == "cpu":
            return self.cpu().to(dtype or self.dtype)
        changed = super().to(dtype or self.dtype)
        return changed if layout is None else changed.contiguous(memory_format=layout)


class Pinned(Tensor):
    """A tensor of the CPU that can be copied to a GPU while something else is done."""

    __torch_function__ = torch._C._disabled_torch_function_impl


class GPU(TorchDispatchMode):
    """While it is entered there is one GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        """Where, and for what, the CPU waited for it."""
        self.launches = 0
        """Operations it was given one by one."""
        self.replays = 0
        self.graph: Graph | None = None
        """What is being recorded."""
        self._patches = contextlib.ExitStack()

    def __enter__(self) -> GPU:
        for name, value in {
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "_lazy_init": lambda: None,
            "is_initialized": lambda: True,
            "is_bf16_supported": lambda including_emulation=True: True,
            "mem_get_info": lambda device=None: (1 << 36, 1 << 36),
            "get_device_capability": lambda device=None: (9, 0),
            "manual_seed": lambda seed: None,
            "manual_seed_all": lambda seed: None,
            "synchronize": lambda device=None: self.waited("synchronize"),
            "Stream": lambda device=None: Stream(self),
            "stream": lambda stream: contextlib.nullcontext(),
            "current_stream": lambda device=None: Stream(self),
            "is_current_stream_capturing": lambda: self.graph is not None,
            "graph_pool_handle": lambda: (0, 1),
            "CUDAGraph": lambda: Graph(self),
            "graph": self._recording,
        }.items():
            self._patches.enter_context(mock.patch.object(torch.cuda, name, value))
        autocast, grouped = torch.autocast, _on_gpu(clip_grad._group_tensors_by_device_and_dtype)
        to = Tensor.to

        def sent(x: Tensor, *how: Any, **also: Any) -> Tensor:
            return to(x, *_named(how), **also)

        for owner, name, value in (
            (Tensor, "to", sent),
            (torch.accelerator, "current_stream", lambda device=None: Stream(self)),
            (torch, "autocast", lambda _, *how, **also: autocast("cpu", *how, **also)),
            (clip_grad, "_group_tensors_by_device_and_dtype", grouped),
            (optimizer, "_group_tensors_by_device_and_dtype", grouped),
        ):
            self._patches.enter_context(mock.patch.object(owner, name, value))
        OnGPU.gpu = self
        torch._C._set_only_lift_cpu_tensors(True)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        super().__enter__()
        return self

    def __exit__(self, *what: Any) -> None:
        super().__exit__(*what)
        torch._C._set_only_lift_cpu_tensors(False)
        torch.__future__.set_overwrite_module_params_on_conversion(False)
        self._patches.close()

    def waited(self, why: str) -> None:
        """The CPU waits."""
        where = [
            f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.line}"
            for frame in traceback.extract_stack()
            if "/audiovq/" in frame.filename
        ]
        self.waits.append(f"{why}: {where[-1] if where else 'outside'}")
        if self.graph is not None:
            raise RuntimeError(f"not permitted when a stream is capturing ({self.waits[-1]})")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        device = kwargs.get("device")
        asked = device is not None and torch.device(device).type == "cuda"
        flat = tree_flatten((args, kwargs))[0]
        tensors = [x for x in flat if isinstance(x, Tensor)]
        if func in (aten._pin_memory.default, aten.pin_memory.default):
            return args[0].clone().as_subclass(Pinned)
        here = not asked and not any(isinstance(x, OnGPU) for x in tensors)
        if here and func.overloadpacket is not aten.to:
            return func(*args, **kwargs)
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            # Of inference tensors, what others are made of comes in one piece.
            TorchDispatchMode.__enter__(self)
            try:
                return func.decompose(*args, **kwargs)
            finally:
                TorchDispatchMode.__exit__(self, None, None, None)
        with torch.inference_mode(False), torch.no_grad():
            return self._computed(func, args, kwargs, tensors, asked, device)

    def _computed(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: Any,
        tensors: list[Tensor],
        asked: bool,
        device: Any,
    ) -> Any:
        """What an operation gives."""
        if asked:
            kwargs["device"] = torch.device("cpu")
        self._check(func, args, kwargs, tensors, device)
        if func is aten._fused_sdp_choice.default:
            return 0  # plain products
        self.launches += 1
        plain: Any = tree_map_only(Tensor, self._plain, (args, kwargs))
        if self.graph is not None:
            self.graph.touches(func, plain)
        out = func(*plain[0], **plain[1])
        known = {id(x.inner): x for x in tensors if isinstance(x, OnGPU)}

        def wrapped(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            return known[id(x)] if id(x) in known else OnGPU(x)

        result = out
        if not (func is aten.copy_.default and not isinstance(args[0], OnGPU)):
            result = tree_map(wrapped, out)
        if self.graph is not None:
            self.graph.add(func, plain, out)
        return return_and_correct_aliasing(func, args, kwargs, result)

    def _plain(self, x: Tensor) -> Tensor:
        """What is computed with; of the CPU's tensors, a graph keeps what they were."""
        if isinstance(x, OnGPU):
            return x.inner
        return x if self.graph is None else x.clone()

    def _check(
        self, func: Any, args: tuple[Any, ...], kwargs: Any, tensors: list[Tensor], device: Any
    ) -> None:
        """Raise where tensors of the CPU are mixed in, note where the CPU waits."""
        if func in WAITS:
            self.waited(WAITS[func])
        strangers = [x for x in tensors if not isinstance(x, OnGPU)]
        if func is aten._to_copy.default and device is not None:
            self._sends(strangers, kwargs.get("non_blocking"))
            return
        if func is aten.copy_.default:
            if not isinstance(args[0], OnGPU):
                self.waited("a copy to the CPU")
            elif args[1].dim():
                self._sends(strangers, len(args) > 2 and args[2])
            return
        if func in INDEXED:
            if any(x is not None and not isinstance(x, OnGPU) for x in args[1]):
                self.waited("indices of the CPU")
            if any(x is not None and x.dtype == torch.bool for x in args[1]):
                self.waited("the result's size must be known")
            strangers = [x for x in (args[0], *args[2:3]) if not isinstance(x, OnGPU)]
        if any(x.dim() > 0 for x in strangers):
            raise RuntimeError(f"{func}: tensors of the CPU among those of cuda:0")

    def _sends(self, tensors: list[Tensor], non_blocking: bool | None) -> None:
        """Tensors of the CPU are copied to the GPU."""
        if self.graph is not None and tensors:
            raise RuntimeError("a graph does not see what changes on the CPU")
        for x in tensors:
            if not non_blocking:
                self.waited("a copy that blocks")
            elif not isinstance(x, Pinned):
                self.waited("a copy from memory that is not pinned")

    @contextlib.contextmanager
    def _recording(self, graph: Graph, **_: Any) -> Iterator[None]:
        """torch.cuda.graph: what is computed is recorded, nothing is changed."""
        self.waited("a graph is begun")
        seed = torch.get_rng_state()
        self.graph = graph
        try:
            yield
        finally:
            self.graph = None
            torch.set_rng_state(seed)
            graph.end()


def _named(how: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments of `Tensor.to`: another tensor's device, which C++ takes for the CPU, named."""
    return (how[0].device, how[0].dtype) if how and isinstance(how[0], OnGPU) else how


def _on_gpu(grouped: Callable[..., Any]) -> Callable[..., Any]:
    """An optimizer's groups by device, as C++ sees it, become those by the device that tensors name."""

    def groups(lists: Any, *more: Any) -> Any:
        found = grouped(lists, *more).items()
        return {(parts[0][0][0].device, kind): parts for (_, kind), parts in found}

    return groups


class Stream:
    """One of many, all alike."""

    def __init__(self, gpu: GPU) -> None:
        self._gpu = gpu

    def wait_stream(self, other: Stream) -> None:
        """At once."""

    def is_capturing(self) -> bool:
        """Whether anything is being recorded."""
        return self._gpu.graph is not None


class Graph:
    """torch.cuda.CUDAGraph."""

    def __init__(self, gpu: GPU) -> None:
        self._gpu = gpu
        self._tape: list[tuple[Callable[..., Any], Any, list[Tensor]]] = []
        self._before: dict[int, tuple[Any, Any]] = {}
        """Memory that was there before, and what it held."""
        self._own: dict[int, Any] = {}
        """Memory of what was made since."""

    def touches(self, func: Any, plain: Any) -> None:
        """An operation is about to write into its arguments."""
        if not func._schema.is_mutable:
            return
        for x in tree_flatten(plain)[0]:
            if isinstance(x, Tensor):
                storage = x.untyped_storage()
                place = storage.data_ptr()
                if place not in self._own and place not in self._before:
                    self._before[place] = storage, storage.clone()

    def add(self, func: Any, plain: Any, out: Any) -> None:
        """An operation, its arguments, and what it gave."""
        outs = [x for x in tree_flatten(out)[0] if isinstance(x, Tensor)]
        given = {
            x.untyped_storage().data_ptr() for x in tree_flatten(plain)[0] if isinstance(x, Tensor)
        }
        made = [x for x in outs if x.untyped_storage().data_ptr() not in given]
        for x in made:
            self._own[x.untyped_storage().data_ptr()] = x.untyped_storage()
        if outs and not made and not func._schema.is_mutable:
            return  # a view
        self._tape.append((func, plain, made))

    def end(self) -> None:
        """Undo what was computed."""
        for storage, held in self._before.values():
            storage.copy_(held)
        for _, _, made in self._tape:
            for x in made:
                x.fill_(torch.nan if x.is_floating_point() else 0)

    def replay(self) -> None:
        """Compute it."""
        self._gpu.replays += 1
        with torch.no_grad(), torch.utils._python_dispatch._disable_current_modes():
            for func, (args, kwargs), made in self._tape:
                out = func(*args, **kwargs)
                outs = [x for x in tree_flatten(out)[0] if isinstance(x, Tensor)]
                fresh = outs if len(outs) == len(made) else []
                for own, x in zip(made, fresh, strict=bool(fresh)):
                    own.copy_(x)

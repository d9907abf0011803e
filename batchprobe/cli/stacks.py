# SPDX-License-Identifier: Apache-2.0
"""`batchprobe stacks`: a run of `attach` that shows from where functions are called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from batchprobe.actions.stacks import CallStack, CallTimeStacks, Stacks
from batchprobe.cli.args import AttachOptions, StacksOptions
from batchprobe.cli.attach import attach_lists
from batchprobe.cli.results_file import refuse_json
from batchprobe.cli.signals import Stop
from batchprobe.errors import bcc_is_missing
from batchprobe.functions.addresses import KernelAddresses
from batchprobe.functions.kernel_symbols import KernelSymbols
from batchprobe.output import stack_list
from batchprobe.output.stack_profile import UNKNOWN, Frame, Profile
from batchprobe.output.text import TextSink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

    from batchprobe.output.base import Values

__all__ = ["StackSink", "stack_lists"]

_SHOWN = 10


def stack_lists(lists: Sequence[str], options: StacksOptions, stop: Stop) -> int:
    """As `attach_lists`, with stacks of callers instead of the number of hits."""
    # Records are JSON too, so `.json` is no contradiction.
    refuse_json(options.output, [".svg", ".folded"], as_json=options.as_json)
    action = (CallTimeStacks if options.by_time else Stacks)(user=options.user)
    user = UserAddresses() if options.user else None
    return attach_lists(
        lists,
        options,
        stop,
        action,
        lambda out: StackSink(out, action, options, by_time=options.by_time, user=user),
    )


class UserAddresses:
    """Names of addresses in processes, from bcc's cache of their symbols.

    Raises UnsupportedError where bcc is missing.
    """

    def __init__(self) -> None:
        try:
            from bcc import BPF  # noqa: PLC0415  (the distribution's; absent on many machines)
        except ImportError as error:
            raise bcc_is_missing() from error
        self._sym: Callable[..., bytes] = BPF.sym

    def frame(self, pid: int, ip: int) -> Frame:
        """`libc.so.6!read+0x10`; unknown if the process has ended or its files have no symbols."""
        found = self._sym(ip, pid, show_module=True, show_offset=True).decode(errors="replace")
        # The name may have brackets too: `f(int) [clone .cold]+0x10 [libc.so.6]`.
        name, has_module, module = found.rpartition(" [")
        if not has_module:
            name, module = found, ""
        module = module.rstrip("]").rpartition("/")[2]
        if name.startswith("[unknown]"):
            return Frame(f"{module}!{UNKNOWN.name}" if module else UNKNOWN.name, is_kernel=False)
        return Frame(f"{module}!{name}" if module else name, is_kernel=False)


class StackSink(TextSink):
    """Writes the stacks at the end, in the form that the name of the file asks for."""

    def __init__(
        self,
        out: TextIO,
        action: Stacks,
        options: AttachOptions,
        *,
        by_time: bool,
        user: UserAddresses | None,
    ) -> None:
        super().__init__(out, action, top=options.top)
        self._file = options.output or ""
        self._most = options.top or _SHOWN
        self._by_time = by_time
        self._user = user
        self._kernel: KernelAddresses | None = None

    def interval(self, seconds: float, total: Values, delta: Values) -> None:
        # A table would not be part of the file's form.
        if _writer(self._file) is None:
            super().interval(seconds, total, delta)

    def final(self, values: Values) -> None:
        write = _writer(self._file)
        profile = self._profile(values, with_offsets=write is None)
        if write is None:
            stack_list.write(profile, self._out, top=self._most)
        else:
            write(profile, self._out)
        self._out.flush()

    def _profile(self, values: Values, *, with_offsets: bool) -> Profile:
        self._kernel = KernelAddresses(KernelSymbols().table())
        weights: dict[tuple[Frame, ...], int] = {}
        for sums in values.values():
            for stack, one in sums.items():
                frames = tuple(self._frames(stack))
                if not with_offsets:
                    frames = tuple(Frame(frame.function, frame.is_kernel) for frame in frames)
                weight = one.time_ns if self._by_time else one.calls
                weights[frames] = weights.get(frames, 0) + weight
        title = f"{len(values)} functions by {'time' if self._by_time else 'calls'}"
        lost = sum(sums.lost for sums in values.values())
        return Profile(title, weights, unit="ns" if self._by_time else "calls", lost=lost)

    def _frames(self, stack: CallStack) -> Iterator[Frame]:
        """From the outermost to the innermost."""
        if stack.pid:
            yield Frame(f"{stack.comm}-{stack.pid}", is_kernel=False)
        if self._user is not None:
            for ip in reversed(stack.user):
                yield self._user.frame(stack.pid, ip)
        innermost = len(stack.kernel) - 1
        for depth, ip in enumerate(reversed(stack.kernel)):
            yield self._frame(ip, is_return=depth < innermost)
        if stack.error:
            yield Frame(f"-{stack.error}", is_kernel=True)

    def _frame(self, ip: int, *, is_return: bool) -> Frame:
        name = self._kernel.name(ip, is_return=is_return) if self._kernel is not None else ""
        return Frame(name or f"{ip:#x}", is_kernel=True)


def _writer(file: str) -> Callable[[Profile, Any], None] | None:
    """What writes a file of this name; None for the list."""
    if file.endswith(".svg"):
        from batchprobe.output import flame_graph  # noqa: PLC0415  (one form is written)

        return flame_graph.write
    if file.endswith(".folded"):
        from batchprobe.output import folded  # noqa: PLC0415

        return folded.write
    if file.endswith(".json"):
        from batchprobe.output import speedscope  # noqa: PLC0415

        return speedscope.write
    return None

# SPDX-License-Identifier: Apache-2.0
"""What an attach has created and what was refused, so that it can be undone at any moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from batchprobe._util.counted import counted
from batchprobe.attach.base import AttachContext, Attachment, Refusal
from batchprobe.errors import BatchprobeError, KernelError, UnsupportedError, verifier_log
from batchprobe.filters.base import ProbeKind
from batchprobe.probe import Probe

__all__ = ["AttachOutcome", "Make", "MakeCalls"]

Make = Callable[[Sequence[Probe], bool, Attachment | None], Attachment]
"""Makes an attachment of these probes: are they return probes? The last argument is `beside`."""
MakeCalls = Callable[[Sequence[Probe]], Attachment]
"""Makes one kernel object for both ends of these calls."""


class AttachOutcome:
    """The outcome of an attach. ABIs fill it in as they go, so that an interrupted attach can be
    undone.
    """

    def __init__(self) -> None:
        self.attachments: list[Attachment] = []
        self.refused: list[Refusal] = []
        self.abandoned: list[Attachment] = []
        """Attachments that ended up without a probe, to be reclaimed."""
        self.unsupported: UnsupportedError | None = None
        """Why an ABI could attach nothing of a kind."""
        self.error: BatchprobeError | None = None
        """The first one that refused all probes of a kind."""

    def add(
        self,
        probes: Sequence[Probe],
        context: AttachContext,
        make: Make,
        make_calls: MakeCalls | None = None,
    ) -> None:
        """`make` and attach one attachment of the entry probes, and one of the return probes.
        `make_calls` is tried first for both ends of calls.

        Its failure refuses its probes only: those of the other kind may be attached by then.
        """
        if context.action.kind is ProbeKind.CALL:
            self._add_calls(probes, context, make, make_calls)
            return
        for is_return in (False, True):
            wanted = [probe for probe in probes if probe.target.is_return is is_return]
            if context.distrusted:
                wanted = [probe for probe in wanted if self._trusts(probe, context)]
            if not wanted:
                continue
            self._add_one(wanted, context, partial(make, wanted, is_return, None))

    def _add_calls(
        self,
        probes: Sequence[Probe],
        context: AttachContext,
        make: Make,
        make_calls: MakeCalls | None,
    ) -> None:
        from batchprobe.attach.calls import CallsAttachment, fit  # noqa: PLC0415  (few need it)

        wanted, refused = fit(probes, context)
        self.refused += refused
        if not wanted:
            return
        if make_calls is not None:
            known = len(self.refused)
            if self._add_one(wanted, context, lambda: make_calls(wanted)):
                return
            context.explain("one kernel object for each end of the calls is tried")
            del self.refused[known:]
        self._add_one(wanted, context, lambda: CallsAttachment(wanted, make))

    def _add_one(
        self, wanted: Sequence[Probe], context: AttachContext, make: Callable[[], Attachment]
    ) -> bool:
        """Returns whether any of the probes is attached."""
        try:
            attachment = make()
        except (KernelError, UnsupportedError) as error:
            self._refuse_all(wanted, error, context)
            return False
        self.attachments.append(attachment)
        try:
            attachment.attach(context)
        except (KernelError, UnsupportedError) as error:
            self._refuse_all(wanted, error, context)
        else:
            self.refused += attachment.refused
            if attachment.live:
                return True
        self.attachments.pop()
        if attachment.is_empty:
            # Only maps: there is nothing to wait for.
            attachment.reclaim(list(attachment.live))
        else:
            self.abandoned.append(attachment)
        return False

    def _trusts(self, probe: Probe, context: AttachContext) -> bool:
        if wrong := context.distrust(probe):
            self.refused.append(Refusal(probe, 0, f"not trusted: {wrong}"))
        return not wrong

    def _refuse_all(
        self,
        probes: Sequence[Probe],
        error: KernelError | UnsupportedError,
        context: AttachContext,
    ) -> None:
        context.explain(f"{counted(len(probes), 'probe')} refused: {error}")
        if log := verifier_log(error):
            context.explain(f"the verifier's log:\n{log}")
        self.error = self.error or error
        if isinstance(error, UnsupportedError):
            self.unsupported = error
        errno = error.errno if isinstance(error, KernelError) else 0
        self.refused += [Refusal(probe, errno, str(error), error) for probe in probes]

# SPDX-License-Identifier: Apache-2.0
"""The frames between scripts/vm and its guest."""

import pytest
from _vm import frames
from hypothesis import given
from hypothesis import strategies as st

FRAMES = st.tuples(
    st.integers(frames.READY, frames.FAILED), st.integers(0, 255), st.binary(max_size=200)
)
TEXT = st.binary(max_size=20).map(lambda data: data.replace(b"\0", b"?"))


@given(st.lists(FRAMES), st.lists(st.integers(1, 50)))
def test_any_cut_of_the_stream_gives_the_same_frames(
    sent: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(frames.pack(*frame) for frame in sent)
    decoder = frames.Decoder()
    received = []
    for cut in cuts:
        received += decoder.feed(stream[:cut])
        stream = stream[cut:]
    received += decoder.feed(stream)
    assert received == sent


@pytest.mark.parametrize(
    "noise", [b"\0" * 6, b"\xff" * 6, frames.pack(frames.DATA)[:2] + b"\xff" * 4]
)
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(frames.ProtocolError):
        frames.Decoder().feed(noise)


@given(
    st.lists(TEXT, min_size=1),
    st.lists(TEXT),
    TEXT,
    st.frozensets(st.sampled_from([0, 1, 2])),
    st.tuples(st.integers(0, 9999), st.integers(0, 9999)),
    st.booleans(),
)
def test_a_command_arrives_as_it_was_sent(
    argv: list[bytes],
    env: list[bytes],
    cwd: bytes,
    terminals: frozenset[int],
    size: tuple[int, int],
    cooked: bool,
) -> None:
    packed = frames.pack_start(argv, env, cwd, terminals, size, cooked)
    [(kind, _, payload)] = frames.Decoder().feed(packed)
    assert kind == frames.START
    assert frames.unpack_start(payload) == (argv, env, cwd, terminals, size, cooked)


def test_numbers_survive() -> None:
    [(_, channel, payload)] = frames.Decoder().feed(frames.pack_credit(frames.STDERR, 70_000))
    assert (channel, frames.unpack_credit(payload)) == (frames.STDERR, 70_000)
    [(_, _, payload)] = frames.Decoder().feed(frames.pack_winsize(50, 132))
    assert frames.unpack_winsize(payload) == (50, 132)
    with pytest.raises(frames.ProtocolError):
        frames.unpack_credit(b"123")


def test_credit_bounds_what_is_on_its_way() -> None:
    sender = frames.Outgoing()
    total = 0
    while room := sender.room():
        assert room <= frames.CHUNK
        sender.sent(room)
        total += room
    assert total == frames.WINDOW
    sender.granted(10)
    assert sender.room() == 10

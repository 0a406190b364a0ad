"""The Triton kernels of packed_triton.py, which imports this module only where it needs them, as it imports triton.

A kernel is started once for all steps of all trials: program (n, b) walks through the steps of trial n with a block of
ROWS of its sequences, as many steps as the trial has. Its state stays in registers, and trial n's weights, if they are
``RESIDENT``, in shared memory, where up to 64 units find room. More are read at each step, and with them what they are
multiplied by: it was just written to memory, and a program can take its blocks from there, not from its registers.

Every tensor but the weights is contiguous; those that end in ``_kept`` begin with the state before the first step:
(N, T + 1, B, H). Rows from B on are no sequences, are 0 and are not written. What a step needs from memory is asked
for before a product of matrices, which takes longer than memory does.
"""

import triton
import triton.language as tl

# One program for all packs: numbers that a pack or a chunk may have otherwise are not compiled in.
_kernel = triton.jit(do_not_specialize=["w_row", "b_row", "T", "B"], do_not_specialize_on_alignment=["w_hh", "b_hh"])


@triton.jit
def _tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def _tile(B, H: tl.constexpr, ROWS: tl.constexpr):
    """This program's rows and units as a tile (ROWS, H): row, unit, and whether it is there."""
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    unit = tl.arange(0, H)[None, :]
    return row, unit, (row < B) & (unit < H)


@triton.jit
def _square(w, width, H: tl.constexpr):
    """H × H weights as the right factor of a product, from rows of ``width``."""
    return tl.load(w + tl.arange(0, H)[:, None] * width + tl.arange(0, H)[None, :])


@triton.jit
def _add_product(sums, left, width, w, w_width, K: tl.constexpr, H: tl.constexpr, row, B, PRECISION: tl.constexpr):
    """sums + left w, both from memory: ``left`` (B, K) in rows of ``width``, ``w`` (K, H) in rows of ``w_width``."""
    BLOCK: tl.constexpr = 32
    column = tl.arange(0, BLOCK)
    unit = tl.arange(0, H)[None, :]
    for k in range(0, K, BLOCK):
        some = tl.load(left + row * width + k + column[None, :], row < B, 0.0)
        weights = tl.load(w + (k + column[:, None]) * w_width + unit)
        sums = tl.dot(some, weights, sums, input_precision=PRECISION)
    return sums


@_kernel
def lstm_forward(
    xg, turned, h0, c0, lengths, h_kept, c_kept, gates, h_end, c_end, T, B,
    H: tl.constexpr, ROWS: tl.constexpr, RESIDENT: tl.constexpr, KEEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What :func:`tbptt.models.packed_triton.lstm` computes.

    ``turned`` are the weights as (N, H, 4H), contiguous. A tile that is read across its rows the compiler would lay out
    in shared memory so that all threads of a warp read from the same bank. ``KEEP``: ``c_kept`` and ``gates`` are
    written.
    """
    n = tl.program_id(0).to(tl.int64)
    row, unit, there = _tile(B, H, ROWS)
    state, four = row * H + unit, row * 4 * H + unit  # places in a step's state and gates
    step = B.to(tl.int64) * H
    w = turned + n * (4 * H * H)
    if RESIDENT:
        wi, wf = _square(w, 4 * H, H), _square(w + H, 4 * H, H)
        wg, wo = _square(w + 2 * H, 4 * H, H), _square(w + 3 * H, 4 * H, H)
    h = tl.load(h0 + n * step + state, there, 0.0)
    c = tl.load(c0 + n * step + state, there, 0.0)
    length = tl.minimum(tl.load(lengths + n), T)
    at, kept = n * T * step, n * (T + 1) * step
    tl.store(h_kept + kept + state, h, there)
    if KEEP:
        tl.store(c_kept + kept + state, c, there)
    for _ in range(0, length):
        x = xg + at * 4 + four
        i = tl.load(x, there, 0.0)
        f = tl.load(x + H, there, 0.0)
        g = tl.load(x + 2 * H, there, 0.0)
        o = tl.load(x + 3 * H, there, 0.0)
        if RESIDENT:
            i = tl.dot(h, wi, i, input_precision=PRECISION)
            f = tl.dot(h, wf, f, input_precision=PRECISION)
            g = tl.dot(h, wg, g, input_precision=PRECISION)
            o = tl.dot(h, wo, o, input_precision=PRECISION)
        else:
            tl.debug_barrier()  # all of h is written
            i = _add_product(i, h_kept + kept, H, w, 4 * H, H, H, row, B, PRECISION)
            f = _add_product(f, h_kept + kept, H, w + H, 4 * H, H, H, row, B, PRECISION)
            g = _add_product(g, h_kept + kept, H, w + 2 * H, 4 * H, H, H, row, B, PRECISION)
            o = _add_product(o, h_kept + kept, H, w + 3 * H, 4 * H, H, H, row, B, PRECISION)
        i, f, g, o = tl.sigmoid(i), tl.sigmoid(f), _tanh(g), tl.sigmoid(o)
        c = f * c + i * g
        h = o * _tanh(c)
        kept += step
        tl.store(h_kept + kept + state, h, there)
        if KEEP:
            tl.store(c_kept + kept + state, c, there)
            y = gates + at * 4 + four
            tl.store(y, i, there)
            tl.store(y + H, f, there)
            tl.store(y + 2 * H, g, there)
            tl.store(y + 3 * H, o, there)
        at += step
    tl.store(h_end + n * step + state, h, there)
    tl.store(c_end + n * step + state, c, there)
    for _ in range(length, T):
        kept += step
        tl.store(h_kept + kept + state, tl.zeros_like(h), there)


@_kernel
def lstm_backward(
    dh_all, w_hh, w_row, lengths, c_kept, gates, dgates, dh_end, dc_end, dh0, dc0, T, B,
    H: tl.constexpr, ROWS: tl.constexpr, RESIDENT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """From the gradients of all h and of the state at the end to those of the gates' sums and of the state before."""
    n = tl.program_id(0).to(tl.int64)
    row, unit, there = _tile(B, H, ROWS)
    state, four = row * H + unit, row * 4 * H + unit
    step = B.to(tl.int64) * H
    w = w_hh + n * w_row
    if RESIDENT:
        wi, wf = _square(w, H, H), _square(w + H * H, H, H)
        wg, wo = _square(w + 2 * H * H, H, H), _square(w + 3 * H * H, H, H)
    dh = tl.load(dh_end + n * step + state, there, 0.0)
    dc = tl.load(dc_end + n * step + state, there, 0.0)
    length = tl.minimum(tl.load(lengths + n), T)
    first, kept = n * T * step, n * (T + 1) * step
    t = tl.maximum(length - 1, 0).to(tl.int64)
    y = gates + (first + t * step) * 4 + four
    i, f = tl.load(y, there, 0.0), tl.load(y + H, there, 0.0)
    g, o = tl.load(y + 2 * H, there, 0.0), tl.load(y + 3 * H, there, 0.0)
    dy = tl.load(dh_all + first + t * step + state, there, 0.0)
    c = tl.load(c_kept + kept + (t + 1) * step + state, there, 0.0)
    before = tl.load(c_kept + kept + t * step + state, there, 0.0)
    for _ in range(0, length):
        d = dgates + (first + t * step) * 4
        tanh_c = _tanh(c)
        dh += dy
        dc += dh * o * (1 - tanh_c * tanh_c)
        di, df = dc * g * i * (1 - i), dc * before * f * (1 - f)
        dg, do = dc * i * (1 - g * g), dh * tanh_c * o * (1 - o)
        dc *= f
        tl.store(d + four, di, there)
        tl.store(d + four + H, df, there)
        tl.store(d + four + 2 * H, dg, there)
        tl.store(d + four + 3 * H, do, there)
        t = tl.maximum(t - 1, 0)  # from here on the step before
        y = gates + (first + t * step) * 4 + four
        i, f = tl.load(y, there, 0.0), tl.load(y + H, there, 0.0)
        g, o = tl.load(y + 2 * H, there, 0.0), tl.load(y + 3 * H, there, 0.0)
        dy = tl.load(dh_all + first + t * step + state, there, 0.0)
        c = before
        before = tl.load(c_kept + kept + t * step + state, there, 0.0)
        if RESIDENT:
            dh = tl.dot(di, wi, input_precision=PRECISION)
            dh = tl.dot(df, wf, dh, input_precision=PRECISION)
            dh = tl.dot(dg, wg, dh, input_precision=PRECISION)
            dh = tl.dot(do, wo, dh, input_precision=PRECISION)
        else:
            tl.debug_barrier()  # all gradients of the step are written
            dh = _add_product(tl.zeros_like(dh), d, 4 * H, w, H, 4 * H, H, row, B, PRECISION)
    tl.store(dh0 + n * step + state, dh, there)
    tl.store(dc0 + n * step + state, dc, there)
    for t in range(length, T):
        d = dgates + (first + t * step) * 4 + four
        tl.store(d, tl.zeros_like(dh), there)
        tl.store(d + H, tl.zeros_like(dh), there)
        tl.store(d + 2 * H, tl.zeros_like(dh), there)
        tl.store(d + 3 * H, tl.zeros_like(dh), there)


@_kernel
def gru_forward(
    xg, turned, b_hh, b_row, h0, lengths, h_kept, gates, h_end, T, B,
    H: tl.constexpr, ROWS: tl.constexpr, RESIDENT: tl.constexpr, KEEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """As :func:`lstm_forward`. ``gates`` keeps r, z, n, and what r is multiplied by."""
    n = tl.program_id(0).to(tl.int64)
    row, unit, there = _tile(B, H, ROWS)
    state, three, four = row * H + unit, row * 3 * H + unit, row * 4 * H + unit
    step = B.to(tl.int64) * H
    w, b = turned + n * (3 * H * H), b_hh + n * b_row + unit
    if RESIDENT:
        wr, wz, wn = _square(w, 3 * H, H), _square(w + H, 3 * H, H), _square(w + 2 * H, 3 * H, H)
    h = tl.load(h0 + n * step + state, there, 0.0)
    length = tl.minimum(tl.load(lengths + n), T)
    at, kept = n * T * step, n * (T + 1) * step
    tl.store(h_kept + kept + state, h, there)
    for _ in range(0, length):
        x = xg + at * 3 + three
        r = tl.load(x, there, 0.0)
        z = tl.load(x + H, there, 0.0)
        new = tl.load(x + 2 * H, there, 0.0)
        if RESIDENT:
            past = tl.dot(h, wn, input_precision=PRECISION)
            r = tl.dot(h, wr, r, input_precision=PRECISION)
            z = tl.dot(h, wz, z, input_precision=PRECISION)
        else:
            tl.debug_barrier()  # all of h is written
            r = _add_product(r, h_kept + kept, H, w, 3 * H, H, H, row, B, PRECISION)
            z = _add_product(z, h_kept + kept, H, w + H, 3 * H, H, H, row, B, PRECISION)
            past = _add_product(tl.zeros_like(h), h_kept + kept, H, w + 2 * H, 3 * H, H, H, row, B, PRECISION)
        r, z, past = tl.sigmoid(r + tl.load(b)), tl.sigmoid(z + tl.load(b + H)), past + tl.load(b + 2 * H)
        new = _tanh(new + r * past)
        h = new + z * (h - new)
        kept += step
        tl.store(h_kept + kept + state, h, there)
        if KEEP:
            y = gates + at * 4 + four
            tl.store(y, r, there)
            tl.store(y + H, z, there)
            tl.store(y + 2 * H, new, there)
            tl.store(y + 3 * H, past, there)
        at += step
    tl.store(h_end + n * step + state, h, there)
    for _ in range(length, T):
        kept += step
        tl.store(h_kept + kept + state, tl.zeros_like(h), there)


@_kernel
def gru_backward(
    dh_all, w_hh, w_row, lengths, h_kept, gates, dxg, dpast, dh_end, dh0, T, B,
    H: tl.constexpr, ROWS: tl.constexpr, RESIDENT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """From the gradients of all h and of the last to those of xg, of what r is multiplied by, and of the first h."""
    n = tl.program_id(0).to(tl.int64)
    row, unit, there = _tile(B, H, ROWS)
    state, three, four = row * H + unit, row * 3 * H + unit, row * 4 * H + unit
    step = B.to(tl.int64) * H
    w = w_hh + n * w_row
    if RESIDENT:
        wr, wz, wn = _square(w, H, H), _square(w + H * H, H, H), _square(w + 2 * H * H, H, H)
    dh = tl.load(dh_end + n * step + state, there, 0.0)
    length = tl.minimum(tl.load(lengths + n), T)
    first, kept = n * T * step, n * (T + 1) * step
    t = tl.maximum(length - 1, 0).to(tl.int64)
    y = gates + (first + t * step) * 4 + four
    r, z = tl.load(y, there, 0.0), tl.load(y + H, there, 0.0)
    new, past = tl.load(y + 2 * H, there, 0.0), tl.load(y + 3 * H, there, 0.0)
    dy = tl.load(dh_all + first + t * step + state, there, 0.0)
    before = tl.load(h_kept + kept + t * step + state, there, 0.0)
    for _ in range(0, length):
        d, d_past = dxg + (first + t * step) * 3, dpast + first + t * step
        dh += dy
        dn = dh * (1 - z) * (1 - new * new)
        dz = dh * (before - new) * z * (1 - z)
        dr, dp = dn * past * r * (1 - r), dn * r
        dh *= z
        tl.store(d + three, dr, there)
        tl.store(d + three + H, dz, there)
        tl.store(d + three + 2 * H, dn, there)
        tl.store(d_past + state, dp, there)
        t = tl.maximum(t - 1, 0)  # from here on the step before
        y = gates + (first + t * step) * 4 + four
        r, z = tl.load(y, there, 0.0), tl.load(y + H, there, 0.0)
        new, past = tl.load(y + 2 * H, there, 0.0), tl.load(y + 3 * H, there, 0.0)
        dy = tl.load(dh_all + first + t * step + state, there, 0.0)
        before = tl.load(h_kept + kept + t * step + state, there, 0.0)
        if RESIDENT:
            dh = tl.dot(dr, wr, dh, input_precision=PRECISION)
            dh = tl.dot(dz, wz, dh, input_precision=PRECISION)
            dh = tl.dot(dp, wn, dh, input_precision=PRECISION)
        else:
            tl.debug_barrier()  # all gradients of the step are written
            dh = _add_product(dh, d, 3 * H, w, H, 2 * H, H, row, B, PRECISION)
            dh = _add_product(dh, d_past, H, w + 2 * H * H, H, H, H, row, B, PRECISION)
    tl.store(dh0 + n * step + state, dh, there)
    for t in range(length, T):
        d = dxg + (first + t * step) * 3 + three
        tl.store(d, tl.zeros_like(dh), there)
        tl.store(d + H, tl.zeros_like(dh), there)
        tl.store(d + 2 * H, tl.zeros_like(dh), there)
        tl.store(dpast + first + t * step + state, tl.zeros_like(dh), there)

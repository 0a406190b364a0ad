"""The noise of packed_noise.py as a Triton kernel: one pass over the memory instead of some 250. It imports triton, so
it is imported where it is used."""

import triton
import triton.language as tl

FACTOR_0 = tl.constexpr(0xD2E7470EE14C6C93)
FACTOR_1 = tl.constexpr(0xCA5A826395121157)
KEY_STEP_0 = tl.constexpr(0x9E3779B97F4A7C15)
KEY_STEP_1 = tl.constexpr(0xBB67AE8584CAA73B)
ROUNDS = tl.constexpr(10)


@triton.jit
def draw(seeds, updates, tables, begins, out, call, first_block, skip, count, BLOCKS: tl.constexpr):
    """(N, count) noise. Each program draws 16 elements of one trial for each of BLOCKS counters.

    ``begins``: (N,) where each trial's table begins in ``tables``; ``skip``: how many elements of the first counter
    come before the first one that is wanted.
    """
    n = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1) * BLOCKS + tl.arange(0, BLOCKS)
    zero = block.to(tl.uint64) * 0
    c0 = block.to(tl.uint64) + first_block + 1  # NumPy counts on before it draws
    c1 = zero + call
    c2 = zero + tl.load(updates + n).to(tl.uint64)
    c3 = zero
    k0 = zero + tl.load(seeds + n).to(tl.uint64)
    k1 = zero
    for _ in tl.static_range(ROUNDS):
        high_0, high_1 = tl.umulhi(c0, zero + FACTOR_0), tl.umulhi(c2, zero + FACTOR_1)
        low_0, low_1 = c0 * FACTOR_0, c2 * FACTOR_1
        c0, c1, c2, c3 = high_1 ^ c1 ^ k0, low_1, high_0 ^ c3 ^ k1, low_0
        k0 += KEY_STEP_0
        k1 += KEY_STEP_1
    words = tl.reshape(tl.join(tl.join(c0, c2), tl.join(c1, c3)), (BLOCKS, 4, 1))
    shifts = (tl.arange(0, 4) * 16).to(tl.uint64)[None, None, :]
    places = ((words >> shifts) & 0xFFFF).to(tl.int32)  # (BLOCKS, 4, 4)
    word, part = tl.arange(0, 4)[None, :, None], tl.arange(0, 4)[None, None, :]
    element = block[:, None, None] * 16 + word * 4 + part - skip
    there = (element >= 0) & (element < count)
    noise = tl.load(tables + tl.load(begins + n) + places, there)
    tl.store(out + n * count + element, noise, there)

/* Noise by counter (models/noise.py). */

/* y = x + noise, n elements, of which the first has the index `first`. The element with index i takes 16 bits, number
 * i % 16 of the block i / 16 that Philox gives for the key `seed` and the counter (block, call, update, layer), and finds
 * its noise at this place of the table, which has 65,536. Like NumPy, it counts the blocks from 1. */
void NAME(noise)(long n, long first, long seed, long call, long update, long layer, const REAL *table, const REAL *x, REAL *y) {
  for (long i = 0, count; i < n; i += count) {
    long skip = (first + i) % 16;
    uint64_t block = (uint64_t)(first + i) / 16 + 1, bits[16];
    uint16_t places[64];
    for (long j = 0; j < 4; j++) philox(block + j, (uint64_t)call, (uint64_t)update, (uint64_t)layer, (uint64_t)seed, bits + 4 * j);
    memcpy(places, bits, sizeof places);
    count = 64;
    if (skip == 0 && n - i >= 64) { /* a constant number of elements, so that the compiler unrolls the loop */
      for (long j = 0; j < 64; j++) y[i + j] = x[i + j] + table[places[j]];
      continue;
    }
    if (count > 64 - skip) count = 64 - skip;
    if (count > n - i) count = n - i;
    for (long j = 0; j < count; j++) y[i + j] = x[i + j] + table[places[skip + j]];
  }
}

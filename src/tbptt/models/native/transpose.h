/* Transposing what is packed for products, and the gradients that come out of them: with short chunks that takes as long as
 * the products. */

#if defined(__GNUC__) && !defined(__clang__)
/* LANES vectors from `from` on, `ld` apart, as their transpose: each round lays the numbers of two vectors side by side,
 * as one shuffles cards, which puts one bit of a number's row in place of one of its column. */
INLINE void NAME(turn_block)(const int plus_0, const REAL *from, long ld, REAL *to, long ld_to) {
  typedef __typeof__((VECTOR){0} == (VECTOR){0}) whole;
  VECTOR a[LANES], b[LANES];
  whole low, high;
  for (long j = 0; j < LANES; j++) low[j] = j / 2 + j % 2 * LANES, high[j] = LANES / 2 + j / 2 + j % 2 * LANES;
  for (long i = 0; i < LANES; i++) a[i] = AT(from + i * ld);
  for (long width = 1; width < LANES; width *= 2) {
    for (long i = 0; i < LANES / 2; i++) {
      b[2 * i] = __builtin_shuffle(a[i], a[i + LANES / 2], low);
      b[2 * i + 1] = __builtin_shuffle(a[i], a[i + LANES / 2], high);
    }
    for (long i = 0; i < LANES; i++) a[i] = b[i];
  }
  for (long i = 0; i < LANES; i++) AT(to + i * ld_to) = plus_0 ? a[i] + 0 : a[i];
}
#else
INLINE void NAME(turn_block)(const int plus_0, const REAL *from, long ld, REAL *to, long ld_to) {
  for (long i = 0; i < LANES; i++)
    for (long j = 0; j < LANES; j++) to[j * ld_to + i] = plus_0 ? from[i * ld + j] + 0 : from[i * ld + j];
}
#endif

/* to (C, R) = from (R, C), transposed; ld: from one row to the next. plus_0: add 0, which makes -0 to 0. */
INLINE void NAME(turn)(const int plus_0, long R, long C, const REAL *from, long ld, REAL *to, long ld_to) {
  long r = 0;
  for (; r + LANES <= R; r += LANES) {
    long c = 0;
    for (; c + LANES <= C; c += LANES) NAME(turn_block)(plus_0, from + r * ld + c, ld, to + c * ld_to + r, ld_to);
    for (; c < C; c++)
      for (long i = r; i < r + LANES; i++) to[c * ld_to + i] = plus_0 ? from[i * ld + c] + 0 : from[i * ld + c];
  }
  for (; r < R; r++)
    for (long c = 0; c < C; c++) to[c * ld_to + r] = plus_0 ? from[r * ld + c] + 0 : from[r * ld + c];
}

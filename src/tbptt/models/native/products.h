/* Matrix products. The right operand lies in panels of up to WIDE vectors a row; a tile of the result, up to ROWS x
 * WIDE vectors, stays in registers while the inner dimension runs. */

#define TILE VECTOR acc[ROWS][WIDE]

/* acc += A B, from its column `first` on: A's element (i, k) is a[i * row + k * step]; B's row k begins at b + k * ldb. */
INLINE void NAME(multiply)(const long rows, const long wide, long K, const REAL *a, long row, long step, const REAL *b, long ldb,
                           TILE, const long first) {
  for (long k = 0; k < K; k++, a += step, b += ldb) {
    VECTOR right[WIDE];
    for (long j = 0; j < wide; j++) right[j] = AT(b + j * LANES);
    for (long i = 0; i < rows; i++) {
      REAL left = a[i * row];
      for (long j = 0; j < wide; j++) acc[i][first + j] += left * right[j];
    }
  }
}

/* A product of which the left operand, and with it the rows of the right one, comes in Q parts of K. */
typedef struct {
  long Q, K;
  const REAL *a;
  long row, step, a_part;
  const REAL *b;
  long ldb, b_part;
} NAME(factors);

enum { NAME(from_zero), NAME(from_c), NAME(from_bias) };

INLINE void NAME(tile)(const long rows, const long wide, const NAME(factors) * f, const REAL *a, REAL *c, long ldc, int from,
                       const REAL *bias) {
  TILE;
  for (long i = 0; i < rows; i++)
    for (long j = 0; j < wide; j++)
      if (from == NAME(from_c))
        acc[i][j] = AT(c + i * ldc + j * LANES);
      else if (from == NAME(from_bias))
        acc[i][j] = AT(bias + j * LANES);
      else
        acc[i][j] = (VECTOR){0};
  for (long q = 0; q < f->Q; q++)
    NAME(multiply)(rows, wide, f->K, a + q * f->a_part, f->row, f->step, f->b + q * f->b_part, f->ldb, acc, 0);
  for (long i = 0; i < rows; i++)
    for (long j = 0; j < wide; j++) AT(c + i * ldc + j * LANES) = acc[i][j];
}

/* A constant number of rows and vectors lets the compiler keep the tile in registers. */
#define CASE(n, do) \
  case n: do(n); break;
#if ROWS == 6
#define FOR_ROWS(rows, do) \
  switch (rows) { CASE(1, do) CASE(2, do) CASE(3, do) CASE(4, do) CASE(5, do) CASE(6, do) }
#elif ROWS == 3
#define FOR_ROWS(rows, do) \
  switch (rows) { CASE(1, do) CASE(2, do) CASE(3, do) }
#else
#define FOR_ROWS(rows, do) \
  switch (rows) { CASE(1, do) CASE(2, do) }
#endif

#define ONE(n) NAME(tile)(n, wide, f, a, c, ldc, from, bias)
INLINE void NAME(any_rows)(long rows, const long wide, const NAME(factors) * f, const REAL *a, REAL *c, long ldc, int from,
                           const REAL *bias) {
  FOR_ROWS(rows, ONE)
}
#undef ONE
#define ONE(n)                                                                                            \
  static __attribute__((noinline)) void NAME(rows_##n)(long rows, const NAME(factors) * f, const REAL *a, \
                                                       REAL *c, long ldc, int from, const REAL *bias) {   \
    NAME(any_rows)(rows, n, f, a, c, ldc, from, bias);                                                    \
  }
ONE(1) ONE(2) ONE(3) ONE(4)
#undef ONE

/* How many rows the next tile has, of M that are left: as even as may be. */
static inline long NAME(next)(long M) {
  long tiles = (M + ROWS - 1) / ROWS;
  return (M + tiles - 1) / tiles;
}

/* C (M, N) from zero, from C or from the bias (N), += A B for one panel of B: N is at most WIDE vectors. Where N fills no
 * vector, C is reached through `edge`, so that nothing beyond its columns is read or written; the bias is padded. */
static void NAME(product)(long M, long N, const NAME(factors) * f, REAL *c, long ldc, int from, const REAL *bias) {
  REAL edge[ROWS * WIDE * LANES];
  long wide = PANELS(N), whole = N % LANES == 0;
  for (long m = 0, rows; m < M; m += rows) {
    rows = NAME(next)(M - m);
    REAL *to = whole ? c + m * ldc : edge;
    long ld = whole ? ldc : wide * LANES;
    if (!whole && from == NAME(from_c))
      for (long i = 0; i < rows; i++) {
        memset(edge + i * ld, 0, ld * sizeof(REAL));
        memcpy(edge + i * ld, c + (m + i) * ldc, N * sizeof(REAL));
      }
    const REAL *a = f->a + m * f->row;
    switch (wide) {
      case 1: NAME(rows_1)(rows, f, a, to, ld, from, bias); break;
      case 2: NAME(rows_2)(rows, f, a, to, ld, from, bias); break;
      case 3: NAME(rows_3)(rows, f, a, to, ld, from, bias); break;
      case 4: NAME(rows_4)(rows, f, a, to, ld, from, bias); break;
    }
    if (!whole)
      for (long i = 0; i < rows; i++) memcpy(c + (m + i) * ldc, edge + i * ld, N * sizeof(REAL));
  }
}

/* Pack B (K, N), whose element (k, n) is b[k * row + n * column], into panels of WIDE vectors: of each panel all K rows,
 * then the next panel. Needs packed(K, N) numbers. */
#define SPAN (WIDE * LANES)
static long NAME(packed)(long K, long N) { return K * PADDED(N); }
static void NAME(pack)(long K, long N, const REAL *b, long row, long column, REAL *to) {
  for (long n = 0; n < N; n += SPAN) {
    long width = SMALLER(N - n, SPAN), padded = PADDED(width);
    if (row == 1) {
      NAME(turn)(0, width, K, b + n * column, column, to, padded);
    } else {
      for (long k = 0; k < K; k++)
        for (long j = 0; j < width; j++) to[k * padded + j] = b[k * row + (n + j) * column];
    }
    for (long k = 0; k < K; k++, to += padded)
      for (long j = width; j < padded; j++) to[j] = 0;
  }
}

/* C (M, N) = or += A B, B packed: N may be any number. The inner dimension is cut so that what is read of a panel again
 * and again stays in the first cache. */
static void NAME(packed_product)(long M, long N, NAME(factors) f, const REAL *b, REAL *c, long ldc, int from, const REAL *bias) {
  long K = f.Q * f.K, at_once = f.Q == 1 ? 1 : LARGER(1, DEPTH / f.K);
  for (long n = 0; n < N; n += SPAN) {
    long width = SMALLER(N - n, SPAN), padded = PADDED(width);
    NAME(factors) g = f;
    g.ldb = padded;
    if (f.Q == 1) {
      for (long k = 0; k < f.K; k += DEPTH) {
        g.K = SMALLER(f.K - k, DEPTH), g.a = f.a + k * f.step, g.b = b + k * padded;
        NAME(product)(M, width, &g, c + n, ldc, k ? NAME(from_c) : from, bias ? bias + n : 0);
      }
    } else {
      g.b_part = f.K * padded;
      for (long q = 0; q < f.Q; q += at_once) {
        g.Q = SMALLER(f.Q - q, at_once), g.a = f.a + q * f.a_part, g.b = b + q * g.b_part;
        NAME(product)(M, width, &g, c + n, ldc, q ? NAME(from_c) : from, bias ? bias + n : 0);
      }
    }
    b += K * padded;
  }
}

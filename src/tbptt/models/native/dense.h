/* A dense layer, with tanh or without. */

/* The tanh of LANES numbers, or of the `count` that are left, in place. */
INLINE void NAME(tanh_of)(REAL *x, long count) {
  REAL room[LANES];
  VECTOR y = NAME(tanh)(AT(NAME(lanes)(x, count, room)));
  if (count >= LANES)
    AT(x) = y;
  else
    memcpy(x, &y, count * sizeof(REAL));
}

/* --- few outputs: a product of vectors each, as most of a tile would be empty ---------------------------------------- */

#define FEW 4

static REAL NAME(dot)(long K, const REAL *a, const REAL *b) {
  VECTOR sums = {0};
  REAL sum = 0;
  long k = 0;
  for (; k + LANES <= K; k += LANES) sums += AT(a + k) * AT(b + k);
  for (; k < K; k++) sum += a[k] * b[k];
  for (long j = 0; j < LANES; j++) sum += sums[j];
  return sum;
}

/* y (K) += a x */
INLINE void NAME(add_times)(long K, REAL a, const REAL *x, REAL *y) {
  long k = 0;
  for (; k + LANES <= K; k += LANES) AT(y + k) += a * AT(x + k);
  for (; k < K; k++) y[k] += a * x[k];
}

static void NAME(few_forward)(long M, long K, long N, const REAL *x, const REAL *w, const REAL *bias, REAL *y) {
  for (long m = 0; m < M; m++)
    for (long n = 0; n < N; n++) y[m * N + n] = bias[n] + NAME(dot)(K, x + m * K, w + n * K);
}

static void NAME(few_backward)(long M, long K, long N, const REAL *x, const REAL *w, const REAL *dy, REAL *dx, REAL *dw,
                               REAL *dbias) {
  memset(dw, 0, N * K * sizeof(REAL));
  memset(dbias, 0, N * sizeof(REAL));
  if (dx) memset(dx, 0, M * K * sizeof(REAL));
  for (long m = 0; m < M; m++)
    for (long n = 0; n < N; n++) {
      REAL d = dy[m * N + n];
      dbias[n] += d;
      NAME(add_times)(K, d, x + m * K, dw + n * K);
      if (dx) NAME(add_times)(K, d, w + n * K, dx + m * K);
    }
  for (long i = 0; i < N * K; i++) dw[i] += 0;
}

/* --- any number of outputs ------------------------------------------------------------------------------------------ */

/* y (M, N) = x (M, K) w^T + bias, of which the tanh if is_tanh; w (N, K). */
void NAME(dense_forward)(long M, long K, long N, long is_tanh, const REAL *x, const REAL *w, const REAL *bias, REAL *y, REAL *room) {
  if (N <= FEW && !is_tanh) {
    NAME(few_forward)(M, K, N, x, w, bias, y);
    return;
  }
  REAL *padded = room + NAME(packed)(K, N);
  NAME(pack)(K, N, w, 1, K, room);
  for (long j = 0; j < PADDED(N); j++) padded[j] = j < N ? bias[j] : 0;
  for (long m = 0; m < M; m += BLOCK) { /* what was just written is still in the cache for tanh */
    long rows = SMALLER(M - m, BLOCK);
    REAL *to = y + m * N;
    NAME(factors) f = {1, K, x + m * K, K, 1};
    NAME(packed_product)(rows, N, f, room, to, N, NAME(from_bias), padded);
    if (is_tanh)
      for (long i = 0; i < rows * N; i += LANES) NAME(tanh_of)(to + i, rows * N - i);
  }
}

/* Backward, from y and its gradient dy, both (M, N). Written: dx (M, K) unless null, dw, dbias; of these
 * two no number is -0 (see unpack). */
void NAME(dense_backward)(long M, long K, long N, long is_tanh, const REAL *x, const REAL *w, const REAL *y, const REAL *dy,
                          REAL *dx, REAL *dw, REAL *dbias, REAL *room) {
  if (N <= FEW && !is_tanh) {
    NAME(few_backward)(M, K, N, x, w, dy, dx, dw, dbias);
    return;
  }
  long wide = PADDED(N);
  REAL *dz = room, *sum = dz + BLOCK * wide, *packed = sum + K * wide;
  memset(room, 0, (BLOCK + K) * wide * sizeof(REAL));
  memset(dbias, 0, N * sizeof(REAL));
  if (dx) NAME(pack)(N, K, w, K, 1, packed);
  for (long m = 0; m < M; m += BLOCK) {
    long rows = SMALLER(M - m, BLOCK);
    for (long i = 0; i < rows; i++) {
      const REAL *restrict y_i = y + (m + i) * N, *restrict dy_i = dy + (m + i) * N;
      REAL *restrict dz_i = dz + i * wide;
      for (long j = 0; j < N; j++) {
        dz_i[j] = is_tanh ? dy_i[j] * (1 - y_i[j] * y_i[j]) : dy_i[j];
        dbias[j] += dz_i[j];
      }
    }
    if (dx) {
      NAME(factors) f = {1, N, dz, wide, 1};
      NAME(packed_product)(rows, K, f, packed, dx + m * K, K, NAME(from_zero), 0);
    }
    for (long n = 0; n < wide; n += SPAN) { /* dw's transpose */
      NAME(factors) f = {1, rows, x + m * K, 1, K, 0, dz + n, wide, 0};
      NAME(product)(K, SMALLER(wide - n, SPAN), &f, sum + n, wide, NAME(from_c), 0);
    }
  }
  for (long n = 0; n < N; n++) dbias[n] += 0;
  NAME(turn)(1, K, N, sum, wide, dw, K);
}

long NAME(dense_room)(long K, long N) {
  return LARGER(NAME(packed)(K, N) + PADDED(N), (BLOCK + K) * PADDED(N) + NAME(packed)(N, K));
}

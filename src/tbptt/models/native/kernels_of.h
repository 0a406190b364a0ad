/* The kernels for one number type: REAL, and NAME(x) to name the functions. Included once for each by kernels.c. */

typedef REAL NAME(vector) __attribute__((vector_size(VECTOR_BYTES)));
typedef REAL NAME(loose) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
#define VECTOR NAME(vector)
#define LOOSE NAME(loose)
#define LANES ((long)(VECTOR_BYTES / sizeof(REAL)))
#define COLUMNS (2 * LANES) /* of a tile */

/* --- matrix products ---------------------------------------------------------------------------------------------
 * B is packed first: panels of COLUMNS columns, each contiguous, padded with zeros. A tile of up to ROWS x COLUMNS of C
 * stays in registers while k runs. */

static long NAME(packed)(long k, long n) { return k * ((n + COLUMNS - 1) / COLUMNS * COLUMNS); }

/* B's element (k, n) is b[k * row + n * column]. */
static void NAME(pack)(long K, long N, const REAL *b, long row, long column, REAL *to) {
  for (long n = 0; n < N; n += COLUMNS) {
    long width = N - n < COLUMNS ? N - n : COLUMNS;
    for (long k = 0; k < K; k++, to += COLUMNS) {
      for (long j = 0; j < width; j++) to[j] = b[k * row + (n + j) * column];
      for (long j = width; j < COLUMNS; j++) to[j] = 0;
    }
  }
}

static inline __attribute__((always_inline)) void NAME(tile)(const long rows, long K, const REAL *a, long row, long column,
                                                             const REAL *panel, REAL *c, long ldc, int add) {
  VECTOR left[ROWS], right[ROWS];
  for (long i = 0; i < rows; i++) {
    left[i] = right[i] = (VECTOR){0};
    if (add) {
      left[i] = *(const LOOSE *)(c + i * ldc);
      right[i] = *(const LOOSE *)(c + i * ldc + LANES);
    }
  }
  for (long k = 0; k < K; k++) {
    VECTOR p = *(const LOOSE *)(panel + k * COLUMNS), q = *(const LOOSE *)(panel + k * COLUMNS + LANES);
    for (long i = 0; i < rows; i++) {
      REAL x = a[i * row + k * column];
      left[i] += x * p;
      right[i] += x * q;
    }
  }
  for (long i = 0; i < rows; i++) {
    *(LOOSE *)(c + i * ldc) = left[i];
    *(LOOSE *)(c + i * ldc + LANES) = right[i];
  }
}

static void NAME(any_tile)(long rows, long K, const REAL *a, long row, long column, const REAL *panel, REAL *c, long ldc,
                           int add) {
  switch (rows) { /* a constant number of rows lets the compiler keep them in registers */
    case 1: NAME(tile)(1, K, a, row, column, panel, c, ldc, add); break;
    case 2: NAME(tile)(2, K, a, row, column, panel, c, ldc, add); break;
    case 3: NAME(tile)(3, K, a, row, column, panel, c, ldc, add); break;
    case 4: NAME(tile)(4, K, a, row, column, panel, c, ldc, add); break;
#if ROWS == 8
    case 5: NAME(tile)(5, K, a, row, column, panel, c, ldc, add); break;
    case 6: NAME(tile)(6, K, a, row, column, panel, c, ldc, add); break;
    case 7: NAME(tile)(7, K, a, row, column, panel, c, ldc, add); break;
    case 8: NAME(tile)(8, K, a, row, column, panel, c, ldc, add); break;
#endif
  }
}

/* C (M, N) = or += A B, B packed; A's element (m, k) is a[m * row + k * column]. */
static void NAME(product)(long M, long N, long K, const REAL *a, long row, long column, const REAL *b, REAL *c, long ldc,
                          int add) {
  REAL edge[ROWS * COLUMNS];
  for (long n = 0; n < N; n += COLUMNS, b += K * COLUMNS) {
    long width = N - n < COLUMNS ? N - n : COLUMNS;
    for (long m = 0; m < M; m += ROWS) {
      long rows = M - m < ROWS ? M - m : ROWS;
      if (width == COLUMNS) {
        NAME(any_tile)(rows, K, a + m * row, row, column, b, c + m * ldc + n, ldc, add);
        continue;
      }
      NAME(any_tile)(rows, K, a + m * row, row, column, b, edge, COLUMNS, 0);
      for (long i = 0; i < rows; i++)
        for (long j = 0; j < width; j++) {
          REAL *to = c + (m + i) * ldc + n + j;
          *to = edge[i * COLUMNS + j] + (add ? *to : 0);
        }
    }
  }
}

/* C (M, N) = A^T B over K rows; A is (K, M) and B is (K, N), both contiguous. */
static void NAME(over_rows)(long M, long N, long K, const REAL *a, const REAL *b, REAL *c, REAL *room) {
  for (long k = 0; k < K; k += BLOCK) {
    long depth = K - k < BLOCK ? K - k : BLOCK;
    NAME(pack)(depth, N, b + k * N, N, 1, room);
    NAME(product)(M, N, depth, a + k * M, 1, M, room, c, N, k > 0);
  }
}

/* --- the cell ---------------------------------------------------------------------------------------------------- */

static inline REAL NAME(sigmoid)(REAL x) { return 1 / (1 + NAME(exp)(-x)); }
static inline REAL NAME(tanh)(REAL x) { return 2 / (1 + NAME(exp)(-2 * x)) - 1; }

/* Forward through T steps. x (T, B, I); wi (4H, I), wh (4H, H), bias (4H): gates in the order input, forget, cell, output;
 * h0, c0 (B, H). Written: h (T, B, H), c (T, B, H), and for the backward pass gates (T, B, 4H) and tanh c (T, B, H). If
 * keep is 0, no backward pass follows, and c, gates and tanh_c have room for one step only, the last one.
 * room: packed(I, 4H) + packed(H, 4H) numbers. */
void NAME(lstm_forward)(long T, long B, long I, long H, long keep, const REAL *x, const REAL *wi, const REAL *wh, const REAL *bias,
                        const REAL *h0, const REAL *c0, REAL *h, REAL *c, REAL *gates, REAL *tanh_c, REAL *room) {
  long G = 4 * H;
  REAL *wi_packed = room, *wh_packed = room + NAME(packed)(I, G);
  NAME(pack)(I, G, wi, 1, I, wi_packed);
  NAME(pack)(H, G, wh, 1, H, wh_packed);
  for (long t = 0; t < T; t++) {
    long kept = keep ? t * B : 0;
    REAL *g = gates + kept * G, *h_t = h + t * B * H, *c_t = c + kept * H, *tanh_t = tanh_c + kept * H;
    for (long b = 0; b < B; b++)
      for (long j = 0; j < G; j++) g[b * G + j] = bias[j];
    NAME(product)(B, G, I, x + t * B * I, I, 1, wi_packed, g, G, 1);
    NAME(product)(B, G, H, h0, H, 1, wh_packed, g, G, 1);
    for (long b = 0; b < B; b++) {
      REAL *restrict in = g + b * G, *restrict forget = in + H, *restrict cell = in + 2 * H, *restrict out = in + 3 * H;
      const REAL *before = c0 + b * H; /* may be c_b */
      REAL *c_b = c_t + b * H, *restrict h_b = h_t + b * H, *restrict tanh_b = tanh_t + b * H;
      for (long j = 0; j < 2 * H; j++) in[j] = NAME(sigmoid)(in[j]);
      for (long j = 0; j < H; j++) cell[j] = NAME(tanh)(cell[j]);
      for (long j = 0; j < H; j++) out[j] = NAME(sigmoid)(out[j]);
      for (long j = 0; j < H; j++) c_b[j] = forget[j] * before[j] + in[j] * cell[j];
      for (long j = 0; j < H; j++) tanh_b[j] = NAME(tanh)(c_b[j]);
      for (long j = 0; j < H; j++) h_b[j] = out[j] * tanh_b[j];
    }
    h0 = h_t;
    c0 = c_t;
  }
}

/* Backward. dh (T, B, H): the gradients of h. dh_end, dc_end (B, H): the gradients of the last state; overwritten with
 * those of the state before the first step. gates are overwritten with their gradients. Written: dx (T, B, I) unless
 * null, dwi, dwh, dbias.
 * room: packed(4H, H) + the larger of packed(4H, I) and packed(BLOCK, max(I, H)) numbers, and (T, B, H) more. */
void NAME(lstm_backward)(long T, long B, long I, long H, const REAL *x, const REAL *wi, const REAL *wh, const REAL *h0,
                         const REAL *c0, const REAL *h, const REAL *c, REAL *gates, const REAL *tanh_c, const REAL *dh,
                         REAL *dh_end, REAL *dc_end, REAL *dx, REAL *dwi, REAL *dwh, REAL *dbias, REAL *room) {
  long G = 4 * H;
  REAL *wh_packed = room, *rest = room + NAME(packed)(G, H);
  NAME(pack)(G, H, wh, H, 1, wh_packed);
  for (long t = T - 1; t >= 0; t--) {
    REAL *g = gates + t * B * G;
    for (long b = 0; b < B; b++) {
      REAL *restrict in = g + b * G, *restrict forget = in + H, *restrict cell = in + 2 * H, *restrict out = in + 3 * H;
      const REAL *restrict before = t ? c + (t - 1) * B * H + b * H : c0 + b * H;
      const REAL *restrict tanh_b = tanh_c + (t * B + b) * H, *restrict dh_t = dh + (t * B + b) * H;
      REAL *restrict dh_b = dh_end + b * H, *restrict dc_b = dc_end + b * H;
      for (long j = 0; j < H; j++) {
        REAL d = dh_t[j] + dh_b[j], i = in[j], f = forget[j], u = cell[j], o = out[j], s = tanh_b[j];
        REAL dc = dc_b[j] + d * o * (1 - s * s);
        out[j] = d * s * o * (1 - o);
        in[j] = dc * u * i * (1 - i);
        forget[j] = dc * before[j] * f * (1 - f);
        cell[j] = dc * i * (1 - u * u);
        dc_b[j] = dc * f;
      }
    }
    NAME(product)(B, H, G, g, G, 1, wh_packed, dh_end, H, 0);
  }
  if (dx) {
    NAME(pack)(G, I, wi, I, 1, rest);
    NAME(product)(T * B, I, G, gates, G, 1, rest, dx, I, 0);
  }
  NAME(over_rows)(G, I, T * B, gates, x, dwi, rest);
  /* the state before each step: h0, then h but for its last */
  REAL *earlier = rest + ROOM_FOR_BLOCK(LARGER(I, H), G, NAME(packed));
  memcpy(earlier, h0, B * H * sizeof(REAL));
  memcpy(earlier + B * H, h, (T - 1) * B * H * sizeof(REAL));
  NAME(over_rows)(G, H, T * B, gates, earlier, dwh, rest);
  for (long j = 0; j < G; j++) dbias[j] = 0;
  for (long r = 0; r < T * B; r++)
    for (long j = 0; j < G; j++) dbias[j] += gates[r * G + j];
}

/* --- a dense layer with tanh -------------------------------------------------------------------------------------- */

/* y (M, N) = tanh(x (M, K) w^T + bias); w (N, K). room: packed(K, N) numbers. */
void NAME(dense_forward)(long M, long K, long N, const REAL *x, const REAL *w, const REAL *bias, REAL *y, REAL *room) {
  NAME(pack)(K, N, w, 1, K, room);
  for (long m = 0; m < M; m += BLOCK) { /* what was just written is still in cache for tanh */
    long rows = M - m < BLOCK ? M - m : BLOCK;
    REAL *y_m = y + m * N;
    for (long i = 0; i < rows; i++)
      for (long j = 0; j < N; j++) y_m[i * N + j] = bias[j];
    NAME(product)(rows, N, K, x + m * K, K, 1, room, y_m, N, 1);
    for (long i = 0; i < rows * N; i++) y_m[i] = NAME(tanh)(y_m[i]);
  }
}

/* Backward, from y and its gradient dy, both (M, N). Written: dx (M, K) unless null, dw, dbias; dz (M, N) is room, as are
 * the larger of packed(N, K) and packed(BLOCK, K) numbers. */
void NAME(dense_backward)(long M, long K, long N, const REAL *x, const REAL *w, const REAL *y, const REAL *dy, REAL *dx,
                          REAL *dw, REAL *dbias, REAL *dz, REAL *room) {
  for (long i = 0; i < M * N; i++) dz[i] = dy[i] * (1 - y[i] * y[i]);
  for (long j = 0; j < N; j++) dbias[j] = 0;
  for (long m = 0; m < M; m++)
    for (long j = 0; j < N; j++) dbias[j] += dz[m * N + j];
  if (dx) {
    NAME(pack)(N, K, w, K, 1, room);
    NAME(product)(M, K, N, dz, N, 1, room, dx, K, 0);
  }
  NAME(over_rows)(N, K, M, dz, x, dw, room);
}

/* --- noise ---------------------------------------------------------------------------------------------------------- */

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

/* How many numbers of scratch memory (room) each of these functions needs. */
long NAME(lstm_room)(long T, long B, long I, long H) {
  long forward = NAME(packed)(I, 4 * H) + NAME(packed)(H, 4 * H);
  long backward = NAME(packed)(4 * H, H) + ROOM_FOR_BLOCK(LARGER(I, H), 4 * H, NAME(packed)) + T * B * H;
  return LARGER(forward, backward);
}
long NAME(dense_room)(long K, long N) { return LARGER(NAME(packed)(K, N), ROOM_FOR_BLOCK(K, N, NAME(packed))); }

#undef VECTOR
#undef LOOSE
#undef LANES
#undef COLUMNS

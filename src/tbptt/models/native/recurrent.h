/* Recurrent layers. A cell has up to four vectors of gates a panel, in an order of its own:
 *
 *   LSTM: input, forget, cell, output, as in PyTorch's weights.
 *   GRU: new from the input, reset, update, new from the state. The products with the input make the first three, those
 *        with the state the last three. PyTorch's weights have reset, update, new.
 *
 * What the backward pass needs is kept panel by panel, one after the other: gates (T, panels, B, 4, LANES), activated (but
 * the GRU's last: as it was before it was multiplied by reset); and of an LSTM c and tanh c (T + 1 and T, panels, B,
 * LANES). If no backward pass follows, there is room for one step, and of c for two, which take turns. */

typedef struct {
  long gates;                      /* of the weights */
  long first_of_state;             /* vector of the tile at which the products with the state begin */
  long of_input[4], of_state[4];   /* where a vector of the products comes from in the weights */
} NAME(layout);
static const NAME(layout) NAME(lstm) = {4, 0, {0, 1, 2, 3}, {0, 1, 2, 3}};
static const NAME(layout) NAME(gru) = {3, 1, {2, 0, 1}, {0, 1, 2}};

/* --- packing ------------------------------------------------------------------------------------------------------ */

/* w (gates x H, K) as the right operand of the forward pass: `panel` numbers from one panel to the next, and of each, for
 * every k, the gates in order. */
static void NAME(pack_forward)(long gates, const long *order, long H, long K, const REAL *w, REAL *to, long panel) {
  for (long p = 0; p < PANELS(H); p++)
    for (long g = 0; g < gates; g++) {
      REAL *columns = to + p * panel + g * LANES;
      long units = SMALLER(H - p * LANES, LANES);
      NAME(turn)(0, units, K, w + (order[g] * H + p * LANES) * K, K, columns, gates * LANES);
      for (long k = 0; k < K && units < LANES; k++) memset(columns + k * gates * LANES + units, 0, (LANES - units) * sizeof(REAL));
    }
}

/* The same as the right operand of the backward pass, packed for packed_product: its rows are the units' gates. */
static void NAME(pack_backward)(long gates, const long *order, long H, long N, const REAL *w, REAL *to) {
  for (long n = 0; n < N; n += SPAN) {
    long width = SMALLER(N - n, SPAN), padded = PADDED(width);
    for (long p = 0; p < PANELS(H); p++)
      for (long g = 0; g < gates; g++)
        for (long j = 0; j < LANES; j++, to += padded) {
          long unit = p * LANES + j, some = unit < H ? width : 0;
          if (some) memcpy(to, w + (order[g] * H + unit) * N + n, some * sizeof(REAL));
          for (long i = some; i < padded; i++) to[i] = 0;
        }
  }
}

/* The gradient dw (gates x H, K) from what was summed up panel by panel, (panels, K, gates, LANES). A sum that underflowed
 * may be -0; with + 0 it is what a gradient is that is added to a gradient of 0. */
static void NAME(unpack)(long gates, const long *order, long H, long K, const REAL *from, REAL *dw) {
  for (long p = 0; p < PANELS(H); p++)
    for (long g = 0; g < gates; g++)
      NAME(turn)(1, K, SMALLER(H - p * LANES, LANES), from + (p * K * gates + g) * LANES, gates * LANES,
                 dw + (order[g] * H + p * LANES) * K, K);
}

/* rows x H numbers into panels (panels, rows, LANES), or out of them; what fills up is 0. */
static void NAME(to_panels)(long rows, long H, const REAL *from, REAL *to) {
  for (long p = 0; p < PANELS(H); p++)
    for (long i = 0; i < rows; i++, to += LANES)
      for (long j = 0; j < LANES; j++) to[j] = p * LANES + j < H ? from[i * H + p * LANES + j] : 0;
}
static void NAME(from_panels)(long rows, long H, const REAL *from, REAL *to) {
  for (long p = 0; p < PANELS(H); p++)
    for (long i = 0; i < rows; i++, from += LANES)
      memcpy(to + i * H + p * LANES, from, SMALLER(H - p * LANES, LANES) * sizeof(REAL));
}

/* LANES numbers of which `width` are at `from`: there, if that is all of them, or in `room`. */
INLINE const REAL *NAME(lanes)(const REAL *from, long width, REAL *room) {
  if (width >= LANES) return from;
  for (long j = 0; j < LANES; j++) room[j] = j < width ? from[j] : 0;
  return room;
}

/* --- forward ------------------------------------------------------------------------------------------------------ */

/* From the gates before their activation, z, of one row and panel. g: where the gates are kept. */
INLINE void NAME(lstm_cell)(const VECTOR *z, const REAL *before, REAL *g, REAL *c, REAL *tanh_c, REAL *h) {
  VECTOR in = NAME(sigmoid)(z[0]), forget = NAME(sigmoid)(z[1]), cell = NAME(tanh)(z[2]), out = NAME(sigmoid)(z[3]);
  VECTOR now = forget * AT(before) + in * cell, s = NAME(tanh)(now);
  AT(g) = in, AT(g + LANES) = forget, AT(g + 2 * LANES) = cell, AT(g + 3 * LANES) = out;
  AT(c) = now, AT(tanh_c) = s, AT(h) = out * s;
}

INLINE void NAME(gru_cell)(const VECTOR *z, const REAL *before, REAL *g, REAL *h) {
  VECTOR reset = NAME(sigmoid)(z[1]), update = NAME(sigmoid)(z[2]), new = NAME(tanh)(z[0] + reset * z[3]);
  AT(g) = new, AT(g + LANES) = reset, AT(g + 2 * LANES) = update, AT(g + 3 * LANES) = z[3];
  AT(h) = new + update * (AT(before) - new);
}

/* A forward pass: its sizes, its weights as they were packed, and its memory at the present step. c and tanh_c: LSTM. */
typedef struct {
  long B, I, H;
  const REAL *weights, *bias; /* (panels, (I + H) x gates x LANES) and (panels, 4, LANES) */
  const REAL *x, *before, *c_before;
  REAL *h, *c, *tanh_c, *gates;
} NAME(step);

/* Rows m to m + rows of the batch, panel p. */
INLINE void NAME(cells)(const long rows, const int is_lstm, const NAME(step) * s, long m, long p) {
  const long I = s->I, H = s->H, gates = is_lstm ? 4 : 3, first = is_lstm ? 0 : 1;
  const REAL *w = s->weights + p * (I + H) * gates * LANES, *bias = s->bias + p * WIDE * LANES;
  TILE;
  for (long i = 0; i < rows; i++)
    for (long j = 0; j < WIDE; j++) acc[i][j] = AT(bias + j * LANES);
  NAME(multiply)(rows, gates, I, s->x + m * I, I, 1, w, gates * LANES, acc, 0);
  NAME(multiply)(rows, gates, H, s->before + m * H, H, 1, w + I * gates * LANES, gates * LANES, acc, first);
  long width = SMALLER(H - p * LANES, LANES);
  for (long i = 0; i < rows; i++) {
    long place = (p * s->B + m + i) * LANES;
    REAL edge[LANES], edge_before[LANES], *g = s->gates + WIDE * place;
    REAL *h = s->h + (m + i) * H + p * LANES, *to = width < LANES ? edge : h;
    if (is_lstm)
      NAME(lstm_cell)(acc[i], s->c_before + place, g, s->c + place, s->tanh_c + place, to);
    else
      NAME(gru_cell)(acc[i], NAME(lanes)(s->before + (m + i) * H + p * LANES, width, edge_before), g, to);
    if (width < LANES) memcpy(h, edge, width * sizeof(REAL));
  }
}

#define ONE(n) NAME(cells)(n, 1, s, m, p)
static void NAME(lstm_cells)(long rows, const NAME(step) * s, long m, long p) { FOR_ROWS(rows, ONE) }
#undef ONE
#define ONE(n) NAME(cells)(n, 0, s, m, p)
static void NAME(gru_cells)(long rows, const NAME(step) * s, long m, long p) { FOR_ROWS(rows, ONE) }
#undef ONE

/* How many numbers are kept of `steps` steps. */
static long NAME(kept)(int is_lstm, long steps, long B, long H) {
  return (steps * (is_lstm ? WIDE + 2 : WIDE) + (is_lstm ? 1 : 0)) * B * PADDED(H);
}
long NAME(lstm_kept)(long T, long B, long H, long keep) { return NAME(kept)(1, keep ? T : 1, B, H); }
long NAME(gru_kept)(long T, long B, long H, long keep) { return NAME(kept)(0, keep ? T : 1, B, H); }

/* Through T steps. h (T + 1, B, H) has the state before the first step at its beginning. Returns the last c. */
static const REAL *NAME(forward)(int is_lstm, long T, long keep, NAME(step) s, REAL *c) {
  for (long t = 0; t < T; t++) {
    s.before = s.h, s.h += s.B * s.H;
    if (is_lstm) {
      long size = s.B * PADDED(s.H);
      s.c_before = c + (keep ? t : t % 2) * size, s.c = c + (keep ? t + 1 : (t + 1) % 2) * size;
    }
    for (long p = 0; p < PANELS(s.H); p++)
      for (long m = 0, rows; m < s.B; m += rows) {
        rows = NAME(next)(s.B - m);
        (is_lstm ? NAME(lstm_cells) : NAME(gru_cells))(rows, &s, m, p);
      }
    s.x += s.B * s.I;
    if (keep) s.gates += s.B * PANELS(s.H) * WIDE * LANES, s.tanh_c += is_lstm ? s.B * PADDED(s.H) : 0;
  }
  return s.c;
}

static void NAME(pack_both)(const NAME(layout) * l, long I, long H, const REAL *wi, const REAL *wh, REAL *to) {
  long panel = (I + H) * l->gates * LANES;
  NAME(pack_forward)(l->gates, l->of_input, H, I, wi, to, panel);
  NAME(pack_forward)(l->gates, l->of_state, H, H, wh, to + I * l->gates * LANES, panel);
}

/* One vector of a bias (panels, 4, LANES): += the H numbers from `b`. */
static void NAME(add_bias)(long H, long vector, const REAL *b, REAL *to) {
  for (long i = 0; i < H; i++) to[(i / LANES * WIDE + vector) * LANES + i % LANES] += b[i];
}

/* x (T, B, I); wi (4H, I), wh (4H, H), bias (4H); h0, c0 (B, H). Written: h (T + 1, B, H), h0 and all h; c_end (B, H);
 * and for the backward pass, unless keep is 0, `kept`. */
void NAME(lstm_forward)(long T, long B, long I, long H, long keep, const REAL *x, const REAL *wi, const REAL *wh, const REAL *bias,
                        const REAL *h0, const REAL *c0, REAL *h, REAL *c_end, REAL *kept, REAL *room) {
  long steps = keep ? T : 1, numbers = B * PADDED(H);
  REAL *c = kept + steps * WIDE * numbers, *together = room + PANELS(H) * (I + H) * 4 * LANES;
  NAME(pack_both)(&NAME(lstm), I, H, wi, wh, room);
  memset(together, 0, PANELS(H) * WIDE * LANES * sizeof(REAL));
  for (long g = 0; g < 4; g++) NAME(add_bias)(H, g, bias + g * H, together);
  memcpy(h, h0, B * H * sizeof(REAL));
  NAME(to_panels)(B, H, c0, c);
  NAME(step) s = {B, I, H, room, together, x, 0, 0, h, c, c + (steps + 1) * numbers, kept};
  NAME(from_panels)(B, H, NAME(forward)(1, T, keep, s, c), c_end);
}

/* x (T, B, I); wi (3H, I), wh (3H, H), the biases bi and bh (3H); h0 (B, H). Written: h (T + 1, B, H), h0 and all h; and
 * for the backward pass, unless keep is 0, `kept`. */
void NAME(gru_forward)(long T, long B, long I, long H, long keep, const REAL *x, const REAL *wi, const REAL *wh, const REAL *bi,
                       const REAL *bh, const REAL *h0, REAL *h, REAL *kept, REAL *room) {
  const NAME(layout) *l = &NAME(gru);
  REAL *together = room + PANELS(H) * (I + H) * 3 * LANES;
  NAME(pack_both)(l, I, H, wi, wh, room);
  memset(together, 0, PANELS(H) * WIDE * LANES * sizeof(REAL));
  for (long g = 0; g < 3; g++) {
    NAME(add_bias)(H, g, bi + l->of_input[g] * H, together);
    NAME(add_bias)(H, g + 1, bh + l->of_state[g] * H, together);
  }
  memcpy(h, h0, B * H * sizeof(REAL));
  NAME(step) s = {B, I, H, room, together, x, 0, 0, h, 0, 0, kept};
  NAME(forward)(0, T, keep, s, 0);
}

/* --- backward ----------------------------------------------------------------------------------------------------- */

/* From the gates g, c before, tanh c and the gradient of h: the gates' gradients, and dc of the step before. */
INLINE void NAME(lstm_cell_back)(const REAL *g, const REAL *before, const REAL *tanh_c, const REAL *dh, REAL *dh_end,
                                 REAL *dc_end, REAL *dg) {
  VECTOR in = AT(g), forget = AT(g + LANES), cell = AT(g + 2 * LANES), out = AT(g + 3 * LANES), s = AT(tanh_c);
  VECTOR d = AT(dh) + AT(dh_end), dc = AT(dc_end) + d * out * (1 - s * s);
  AT(dg) = dc * cell * in * (1 - in);
  AT(dg + LANES) = dc * AT(before) * forget * (1 - forget);
  AT(dg + 2 * LANES) = dc * in * (1 - cell * cell);
  AT(dg + 3 * LANES) = d * s * out * (1 - out);
  AT(dc_end) = dc * forget;
}

/* From the gates g, h before and the gradient of h: the gates' gradients, and the part of the gradient of h before that
 * goes past the gates. */
INLINE void NAME(gru_cell_back)(const REAL *g, const REAL *before, const REAL *dh, REAL *dh_end, REAL *dg) {
  VECTOR new = AT(g), reset = AT(g + LANES), update = AT(g + 2 * LANES), of_state = AT(g + 3 * LANES);
  VECTOR d = AT(dh) + AT(dh_end), dnew = d * (1 - update) * (1 - new * new);
  AT(dg) = dnew;
  AT(dg + LANES) = dnew * of_state * reset * (1 - reset);
  AT(dg + 2 * LANES) = d * (AT(before) - new) * update * (1 - update);
  AT(dg + 3 * LANES) = dnew * reset;
  AT(dh_end) = d * update;
}

/* A backward pass: what the forward pass kept, and what is to be computed. c and tanh_c: LSTM. */
typedef struct {
  long T, B, I, H;
  const REAL *x, *wi, *wh, *h, *c, *gates, *tanh_c, *dh;
  REAL *dh_end, *dc_end, *dx, *dwi, *dwh;
} NAME(back);

/* Memory of a backward pass: the gates' gradients of some steps, (panels, rows, 4, LANES); sums of them times the inputs,
 * times the states, and alone (panels, 4, LANES); weights; the gradients of h (B, PADDED(H)) and of
 * c (panels, B, LANES) at the present step. */
typedef struct {
  REAL *dg, *sum_x, *sum_h, *sum, *wi, *wh, *dh, *dc;
  long steps; /* at once */
} NAME(memory);

static long NAME(steps_at_once)(long T, long B) { return SMALLER(T, LARGER(1, BLOCK / B)); }

static long NAME(share_out)(const NAME(layout) * l, long T, long B, long I, long H, REAL *room, NAME(memory) * m) {
  long units = PADDED(H) * l->gates, used = 0, steps = NAME(steps_at_once)(T, B);
  long sizes[] = {steps * B * WIDE * PADDED(H), units * I, units * H, WIDE * PADDED(H), NAME(packed)(units, I),
                  NAME(packed)(units, H), B * PADDED(H), B * PADDED(H)};
  REAL **places[] = {&m->dg, &m->sum_x, &m->sum_h, &m->sum, &m->wi, &m->wh, &m->dh, &m->dc};
  for (int i = 0; i < 8; i++) {
    if (room) *places[i] = room + used;
    used += sizes[i];
  }
  m->steps = steps;
  return used;
}

/* Step t, whose rows begin at `row` of the block. */
INLINE void NAME(step_back)(const int is_lstm, const NAME(back) * s, const NAME(memory) * m, long t, long row) {
  long B = s->B, H = s->H, all = PANELS(H), rows = m->steps * B, gates = is_lstm ? 4 : 3;
  for (long p = 0; p < all; p++)
    for (long b = 0; b < B; b++) {
      REAL edge[LANES], edge_before[LANES];
      long kept = ((t * all + p) * B + b) * LANES, unit = (t * B + b) * H + p * LANES, width = H - p * LANES;
      const REAL *g = s->gates + WIDE * kept, *dh = NAME(lanes)(s->dh + unit, width, edge);
      REAL *dh_end = m->dh + b * PADDED(H) + p * LANES, *dg = m->dg + (p * rows + row + b) * WIDE * LANES;
      if (is_lstm)
        NAME(lstm_cell_back)(g, s->c + kept, s->tanh_c + kept, dh, dh_end, m->dc + (p * B + b) * LANES, dg);
      else
        NAME(gru_cell_back)(g, NAME(lanes)(s->h + unit, width, edge_before), dh, dh_end, dg);
    }
  const REAL *a = m->dg + row * WIDE * LANES + (is_lstm ? 0 : LANES);
  NAME(factors) f = {all, gates * LANES, a, WIDE * LANES, 1, rows * WIDE * LANES};
  NAME(packed_product)(B, H, f, m->wh, m->dh, PADDED(H), is_lstm ? NAME(from_zero) : NAME(from_c), 0);
}

/* sum (panels, M, gates, LANES) += over `count` rows a (count, M) times the gates' gradients from `dg` on. */
static void NAME(add_products)(long all, long gates, long M, long count, const REAL *a, const REAL *dg, long part, REAL *sum) {
  for (long k = 0; k < count; k += BLOCK)
    for (long p = 0; p < all; p++) {
      NAME(factors) f = {1, SMALLER(count - k, BLOCK), a + k * M, 1, M, 0, dg + p * part + k * WIDE * LANES, WIDE * LANES, 0};
      NAME(product)(M, gates * LANES, &f, sum + p * M * gates * LANES, gates * LANES, NAME(from_c), 0);
    }
}

/* sum (4, LANES) += `count` rows of gates' gradients. */
static void NAME(add_rows)(long count, const REAL *dg, REAL *sum) {
  VECTOR all[WIDE];
  for (long j = 0; j < WIDE; j++) all[j] = AT(sum + j * LANES);
  for (long r = 0; r < count; r++, dg += WIDE * LANES)
    for (long j = 0; j < WIDE; j++) all[j] += AT(dg + j * LANES);
  for (long j = 0; j < WIDE; j++) AT(sum + j * LANES) = all[j];
}

/* Backward through all steps, some at once: while their gates' gradients are in the cache, all is made of them. */
INLINE void NAME(backward)(const int is_lstm, const NAME(back) * s, const NAME(memory) * m) {
  const NAME(layout) *l = is_lstm ? &NAME(lstm) : &NAME(gru);
  long B = s->B, H = s->H, I = s->I, all = PANELS(H), gates = l->gates, part = m->steps * B * WIDE * LANES;
  if (s->dx) NAME(pack_backward)(gates, l->of_input, H, I, s->wi, m->wi);
  NAME(pack_backward)(gates, l->of_state, H, H, s->wh, m->wh);
  memset(m->sum_x, 0, (m->wi - m->sum_x) * sizeof(REAL)); /* and sum_h and sum, which follow */
  memset(m->dh, 0, B * PADDED(H) * sizeof(REAL));
  for (long b = 0; b < B; b++) memcpy(m->dh + b * PADDED(H), s->dh_end + b * H, H * sizeof(REAL));
  if (is_lstm) NAME(to_panels)(B, H, s->dc_end, m->dc);
  for (long stop = s->T, start; stop > 0; stop = start) {
    start = LARGER(0, stop - m->steps);
    for (long t = stop - 1; t >= start; t--) NAME(step_back)(is_lstm, s, m, t, (t - start) * B);
    long count = (stop - start) * B, first = start * B;
    const REAL *of_state = m->dg + l->first_of_state * LANES;
    if (s->dx) {
      NAME(factors) f = {all, gates * LANES, m->dg, WIDE * LANES, 1, part};
      NAME(packed_product)(count, I, f, m->wi, s->dx + first * I, I, NAME(from_zero), 0);
    }
    NAME(add_products)(all, gates, I, count, s->x + first * I, m->dg, part, m->sum_x);
    NAME(add_products)(all, gates, H, count, s->h + first * H, of_state, part, m->sum_h);
    for (long p = 0; p < all; p++) NAME(add_rows)(count, m->dg + p * part, m->sum + p * WIDE * LANES);
  }
  NAME(unpack)(gates, l->of_input, H, I, m->sum_x, s->dwi);
  NAME(unpack)(gates, l->of_state, H, H, m->sum_h, s->dwh);
  for (long b = 0; b < B; b++) memcpy(s->dh_end + b * H, m->dh + b * PADDED(H), H * sizeof(REAL));
  if (is_lstm) NAME(from_panels)(B, H, m->dc, s->dc_end);
}

/* The gradient of a bias (gates x H) of which vector `first` of the tile is the first gate. */
static void NAME(bias_back)(long gates, const long *order, long H, long first, const REAL *sum, REAL *db) {
  for (long g = 0; g < gates; g++)
    for (long i = 0; i < H; i++) db[order[g] * H + i] = sum[(i / LANES * WIDE + first + g) * LANES + i % LANES];
}

/* From dh (T, B, H), the gradients of h, and from dh_end and dc_end (B, H), those of the last state, which are overwritten
 * with those of the state before the first step. Written: dx (T, B, I) unless null, dwi, dwh, dbias. */
void NAME(lstm_backward)(long T, long B, long I, long H, const REAL *x, const REAL *wi, const REAL *wh, const REAL *h,
                         const REAL *kept, const REAL *dh, REAL *dh_end, REAL *dc_end, REAL *dx, REAL *dwi, REAL *dwh,
                         REAL *dbias, REAL *room) {
  long numbers = B * PADDED(H);
  const REAL *c = kept + T * WIDE * numbers;
  NAME(memory) m;
  NAME(share_out)(&NAME(lstm), T, B, I, H, room, &m);
  NAME(back) s = {T, B, I, H, x, wi, wh, h, c, kept, c + (T + 1) * numbers, dh, dh_end, dc_end, dx, dwi, dwh};
  NAME(backward)(1, &s, &m);
  NAME(bias_back)(4, NAME(lstm).of_input, H, 0, m.sum, dbias);
}

/* The same for a GRU, with two biases; dbh may be null. */
void NAME(gru_backward)(long T, long B, long I, long H, const REAL *x, const REAL *wi, const REAL *wh, const REAL *h,
                        const REAL *kept, const REAL *dh, REAL *dh_end, REAL *dx, REAL *dwi, REAL *dwh, REAL *dbi, REAL *dbh,
                        REAL *room) {
  NAME(memory) m;
  NAME(share_out)(&NAME(gru), T, B, I, H, room, &m);
  NAME(back) s = {T, B, I, H, x, wi, wh, h, 0, kept, 0, dh, dh_end, 0, dx, dwi, dwh};
  NAME(backward)(0, &s, &m);
  NAME(bias_back)(3, NAME(gru).of_input, H, 0, m.sum, dbi);
  if (dbh) NAME(bias_back)(3, NAME(gru).of_state, H, 1, m.sum, dbh);
}

/* How many numbers of scratch memory (room) a layer needs. */
static long NAME(room)(const NAME(layout) * l, long T, long B, long I, long H) {
  NAME(memory) m;
  return LARGER(PADDED(H) * ((I + H) * l->gates + WIDE), NAME(share_out)(l, T, B, I, H, 0, &m));
}
long NAME(lstm_room)(long T, long B, long I, long H) { return NAME(room)(&NAME(lstm), T, B, I, H); }
long NAME(gru_room)(long T, long B, long I, long H) { return NAME(room)(&NAME(gru), T, B, I, H); }

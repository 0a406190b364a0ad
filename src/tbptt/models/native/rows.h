/* Many networks of one shape, each with its own weights, state and noise, in one call forward and one backward. Each is
 * computed by network.h, so a network's numbers are the same alone and among others. Several threads may make the same
 * call at once: each takes the next row that none has taken. */

/* A network, as Python keeps it. dweights may hold null (network_backward). table: of its noise; null if it has none. */
typedef struct {
  const REAL *const *weights;
  REAL *const *dweights;
  const REAL *table;
  long seed;
} NAME(row);

/* What is to be done with n of the rows. which: their numbers. x, updates: of each. state, dstate: of each tensor of the
 * state, (all rows, B, H). y, dy: (n, T, B, outputs). memory: of each `kept` numbers for its backward pass; null: none
 * follows. mode: how the first of the threads computes; null if there is but one. carried: whether dstate holds the
 * gradients of the state after, else they are 0. add: whether the weights' gradients are added to what is there. */
typedef struct {
  const long *which, *updates;
  const REAL *const *x;
  REAL *const *state, *const *dstate;
  REAL *y;
  const REAL *dy;
  REAL *memory;
  const fenv_t *mode;
  long n, kept, carried, add, next;
} NAME(call);

static long NAME(states)(const NAME(plan) * p) { return p->recurrent * (p->is_lstm ? 2 : 1); }
static long NAME(count_of_weights)(const NAME(plan) * p) { return 2 * p->dense + 4 * p->recurrent + 2; }

/* How many numbers each weight has; returns the sum. */
static long NAME(weight_sizes)(const NAME(plan) * p, long *to) {
  long gates = p->is_lstm ? 4 : 3, all = NAME(layers)(p), total = 0;
  for (long i = 0; i <= all; i++) {
    long I = NAME(inputs_of)(p, i), size = i < all ? p->sizes[i] : p->outputs, is_recurrent = i >= p->dense && i < all;
    long rows = is_recurrent ? gates * size : size;
    *to++ = rows * I, total += rows * I;
    if (is_recurrent) *to++ = rows * size, *to++ = rows, total += rows * size + rows;
    *to++ = rows, total += rows;
  }
  return total;
}

/* The row's own plan, in memory of the caller. */
static const NAME(plan) * NAME(plan_of)(const NAME(plan) * p, const NAME(row) * row, long update, long *to) {
  memcpy(to, p, sizeof *p + NAME(layers)(p) * sizeof(long));
  NAME(plan) *own = (NAME(plan) *)to;
  own->has_noise = p->has_noise && row->table, own->seed = row->seed, own->update = update;
  return own;
}
#define PLAN(p) (sizeof *(p) / sizeof(long) + NAME(layers)(p))

/* Where the number `row` has its part of each tensor of the state. */
static void NAME(parts_of)(const NAME(plan) * p, REAL *const *state, long row, REAL **to) {
  for (long i = 0; i < NAME(states)(p); i++) {
    long numbers = p->B * p->sizes[p->dense + (p->is_lstm ? i / 2 : i)];
    to[i] = state[i] + row * numbers;
  }
}

static void NAME(row_forward)(const NAME(plan) * p, const NAME(row) * rows, const NAME(call) * c, long i, REAL *room) {
  const NAME(row) *row = rows + c->which[i];
  long plan[PLAN(p)];
  REAL *state[NAME(states)(p)], *memory = c->memory ? c->memory + i * c->kept : room;
  if (!c->memory) room += c->kept;
  NAME(parts_of)(p, c->state, c->which[i], state);
  NAME(network_forward)(NAME(plan_of)(p, row, c->updates[i], plan), row->weights, (const REAL *const *)state, c->x[i], row->table,
                        c->y + i * p->T * p->B * p->outputs, state, memory, room);
}

static void NAME(row_backward)(const NAME(plan) * p, const NAME(row) * rows, const NAME(call) * c, long i, REAL *room) {
  const NAME(row) *row = rows + c->which[i];
  long plan[PLAN(p)], count = NAME(count_of_weights)(p), sizes[count];
  REAL *dstate[NAME(states)(p)], *found[count];
  NAME(parts_of)(p, c->dstate, c->which[i], dstate);
  for (long j = 0; j < NAME(states)(p) && !c->carried; j++)
    memset(dstate[j], 0, p->B * p->sizes[p->dense + (p->is_lstm ? j / 2 : j)] * sizeof(REAL));
  NAME(weight_sizes)(p, sizes);
  for (long j = 0; j < count; j++) {
    found[j] = row->dweights[j];
    if (c->add && found[j]) found[j] = room, room += sizes[j];
  }
  NAME(network_backward)(NAME(plan_of)(p, row, c->updates[i], plan), row->weights, c->x[i], c->memory + i * c->kept,
                         c->dy + i * p->T * p->B * p->outputs, dstate, 0, found, room);
  for (long j = 0; j < count && c->add; j++)
    for (long k = 0; k < sizes[j] && found[j]; k++) row->dweights[j][k] += found[j][k];
}

static void NAME(each_row)(const NAME(plan) * p, const NAME(row) * rows, NAME(call) * c, REAL *room,
                           void (*one)(const NAME(plan) *, const NAME(row) *, const NAME(call) *, long, REAL *)) {
  fenv_t before;
  if (c->mode) fegetenv(&before), fesetenv(c->mode);
  for (long i; (i = __atomic_fetch_add(&c->next, 1, __ATOMIC_RELAXED)) < c->n;) one(p, rows, c, i, room);
  if (c->mode) fesetenv(&before);
}

/* Of the noise, `p` says whether there is any, and the first step; the rest is each row's own. Every thread has its room. */
void NAME(rows_forward)(const NAME(plan) * p, const NAME(row) * rows, NAME(call) * c, REAL *room) {
  NAME(each_row)(p, rows, c, room, NAME(row_forward));
}
void NAME(rows_backward)(const NAME(plan) * p, const NAME(row) * rows, NAME(call) * c, REAL *room) {
  NAME(each_row)(p, rows, c, room, NAME(row_backward));
}
long NAME(rows_room)(const NAME(plan) * p) {
  long sizes[NAME(count_of_weights)(p)];
  return NAME(network_room)(p) + (p->keep ? NAME(weight_sizes)(p, sizes) : NAME(network_kept)(p));
}
#undef PLAN

/* A network of dense layers with tanh, recurrent layers, and a linear layer at the end, in one call forward and one
 * backward: where chunks are short, most of an update's time would be between the calls of its layers. It calls the
 * same functions in the same order as they would be called one by one. */

/* What Python hands over, number by number. */
typedef struct {
  long T, B, inputs, outputs, dense, recurrent, is_lstm, keep; /* keep: whether a backward pass follows */
  long has_noise, first_step, seed, call, update, layer; /* of the noise: where it begins, and of which bits it is */
  long sizes[];                                          /* of the dense layers and then of the recurrent ones */
} NAME(plan);

/* What a layer's memory has: its output, and with noise; of a recurrent one h from the state before the first step on,
 * and what its backward pass needs. */
typedef struct {
  REAL *y, *noisy, *h, *kept;
} NAME(place);

static inline long NAME(layers)(const NAME(plan) * p) { return p->dense + p->recurrent; }
static inline long NAME(inputs_of)(const NAME(plan) * p, long i) { return i ? p->sizes[i - 1] : p->inputs; }
/* Noise follows each dense layer and each recurrent layer but the last. */
static inline int NAME(is_noisy)(const NAME(plan) * p, long i) { return p->has_noise && i < NAME(layers)(p) - 1; }

/* Divide memory among the layers' places; returns how many numbers it takes. Without memory it only counts. */
static long NAME(lay_out)(const NAME(plan) * p, REAL *memory, NAME(place) * places) {
  long used = 0, rows = p->T * p->B;
  for (long i = 0; i < NAME(layers)(p); i++) {
    long size = p->sizes[i], is_dense = i < p->dense;
    long numbers[] = {is_dense ? rows * size : 0, NAME(is_noisy)(p, i) ? rows * size : 0, is_dense ? 0 : (p->T + 1) * p->B * size,
                      is_dense ? 0 : NAME(kept)(p->is_lstm, p->keep ? p->T : 1, p->B, size)};
    REAL *at[4];
    for (int j = 0; j < 4; j++) at[j] = memory ? memory + used : 0, used += numbers[j];
    if (places) places[i] = (NAME(place)){at[0], at[1], at[2], at[3]};
  }
  return used;
}

/* The output of layer i as the next one reads it. */
static const REAL *NAME(given)(const NAME(plan) * p, const NAME(place) * places, long i, const REAL *x) {
  if (i < 0) return x;
  if (NAME(is_noisy)(p, i)) return places[i].noisy;
  return i < p->dense ? places[i].y : places[i].h + p->B * p->sizes[i];
}

static void NAME(add_noise)(const NAME(plan) * p, long i, const REAL *table, const REAL *x, REAL *y) {
  long width = p->B * p->sizes[i];
  NAME(noise)(p->T * width, p->first_step * width, p->seed, p->call + i, p->update, p->layer, table, x, y);
}

/* weights: of each dense layer w and bias, of each recurrent one wi, wh and two biases, of the last w and bias. state: of
 * each recurrent layer h, and c of an LSTM; after: the same, written, which may be the same memory. y (T, B, outputs) and
 * memory are written. */
void NAME(network_forward)(const NAME(plan) * p, const REAL *const *weights, const REAL *const *state, const REAL *x,
                           const REAL *table, REAL *y, REAL *const *after, REAL *memory, REAL *room) {
  NAME(place) places[NAME(layers)(p)];
  NAME(lay_out)(p, memory, places);
  for (long i = 0; i < NAME(layers)(p); i++) {
    const REAL *input = NAME(given)(p, places, i - 1, x), *output;
    long I = NAME(inputs_of)(p, i), size = p->sizes[i], T = p->T, B = p->B;
    NAME(place) *to = places + i;
    if (i < p->dense) {
      NAME(dense_forward)(T * B, I, size, 1, input, weights[0], weights[1], to->y, room);
      weights += 2, output = to->y;
    } else {
      output = to->h + B * size;
      if (p->is_lstm) {
        for (long j = 0; j < 4 * size; j++) room[j] = weights[2][j] + weights[3][j];
        NAME(lstm_forward)(T, B, I, size, p->keep, input, weights[0], weights[1], room, state[0], state[1], to->h, after[1], to->kept,
                           room + 4 * size);
        state += 2;
      } else {
        NAME(gru_forward)(T, B, I, size, p->keep, input, weights[0], weights[1], weights[2], weights[3], state[0], to->h, to->kept, room);
        state += 1;
      }
      memcpy(after[0], to->h + T * B * size, B * size * sizeof(REAL));
      weights += 4, after += p->is_lstm ? 2 : 1;
    }
    if (NAME(is_noisy)(p, i)) NAME(add_noise)(p, i, table, output, to->noisy);
  }
  NAME(dense_forward)(p->T * p->B, p->sizes[NAME(layers)(p) - 1], p->outputs, 0,
                      NAME(given)(p, places, NAME(layers)(p) - 1, x), weights[0], weights[1], y, room);
}

/* Backward from dy (T, B, outputs) and from dstate, the gradients of the state after, which become those of the state
 * before. Written: dx (T, B, inputs) unless null, and the gradients of all weights; that of a recurrent layer's second
 * bias unless null. */
void NAME(network_backward)(const NAME(plan) * p, const REAL *const *weights, const REAL *x, REAL *memory, const REAL *dy,
                            REAL *const *dstate, REAL *dx, REAL *const *dweights, REAL *room) {
  NAME(place) places[NAME(layers)(p)];
  NAME(lay_out)(p, memory, places);
  long T = p->T, B = p->B, widest = 0, last = NAME(layers)(p) - 1;
  for (long i = 0; i <= last; i++) widest = LARGER(widest, p->sizes[i]);
  REAL *d = room, *other = d + T * B * widest;
  room = other + T * B * widest;
  weights += 2 * p->dense + 4 * p->recurrent, dweights += 2 * p->dense + 4 * p->recurrent;
  dstate += p->recurrent * (p->is_lstm ? 2 : 1);
  NAME(dense_backward)(T * B, p->sizes[last], p->outputs, 0, NAME(given)(p, places, last, x), weights[0], 0, dy, d, dweights[0],
                       dweights[1], room);
  for (long i = last; i >= 0; i--) {
    const REAL *input = NAME(given)(p, places, i - 1, x);
    REAL *to = i ? other : dx; /* noise passes gradients on as they are */
    long I = NAME(inputs_of)(p, i), size = p->sizes[i];
    if (i < p->dense) {
      weights -= 2, dweights -= 2;
      NAME(dense_backward)(T * B, I, size, 1, input, weights[0], places[i].y, d, to, dweights[0], dweights[1], room);
    } else {
      weights -= 4, dweights -= 4, dstate -= p->is_lstm ? 2 : 1;
      if (p->is_lstm) {
        NAME(lstm_backward)(T, B, I, size, input, weights[0], weights[1], places[i].h, places[i].kept, d, dstate[0], dstate[1], to,
                            dweights[0], dweights[1], dweights[2], room);
        if (dweights[3]) memcpy(dweights[3], dweights[2], 4 * size * sizeof(REAL));
      } else {
        NAME(gru_backward)(T, B, I, size, input, weights[0], weights[1], places[i].h, places[i].kept, d, dstate[0], to, dweights[0],
                           dweights[1], dweights[2], dweights[3], room);
      }
    }
    other = d, d = to;
  }
}

long NAME(network_kept)(const NAME(plan) * p) { return NAME(lay_out)(p, 0, 0); }
long NAME(network_room)(const NAME(plan) * p) {
  long most = NAME(dense_room)(p->sizes[NAME(layers)(p) - 1], p->outputs), widest = 0;
  for (long i = 0; i < NAME(layers)(p); i++) {
    long I = NAME(inputs_of)(p, i), size = p->sizes[i];
    long room = i < p->dense ? NAME(dense_room)(I, size)
                             : 4 * size + NAME(room)(p->is_lstm ? &NAME(lstm) : &NAME(gru), p->T, p->B, I, size);
    most = LARGER(most, room), widest = LARGER(widest, size);
  }
  return most + 2 * p->T * p->B * widest;
}

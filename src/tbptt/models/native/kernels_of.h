/* The kernels for one number type: REAL, and NAME(x) to name the functions. Included once for each by kernels.c.
 *
 * Numbers that belong to units are kept in panels, here and in what the callers keep for the backward pass: a panel has
 * LANES units, and of each row their gates lie side by side, a vector a gate, so that one tile of a product ends as the
 * gates of the same units. The last panel is filled up with zeros; none of them reaches a real unit. */

typedef REAL NAME(vector) __attribute__((vector_size(VECTOR_BYTES)));
typedef REAL NAME(loose) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
#define VECTOR NAME(vector)
#define LOOSE NAME(loose)
#define LANES ((long)(VECTOR_BYTES / sizeof(REAL)))
#define AT(place) (*(LOOSE *)(place)) /* LANES numbers */
#define PANELS(units) (((units) + LANES - 1) / LANES)
#define PADDED(units) (PANELS(units) * LANES)

INLINE VECTOR NAME(sigmoid)(VECTOR x) { return NAME(inverse)(1 + NAME(exp)(-x)); }
INLINE VECTOR NAME(tanh)(VECTOR x) { return 2 * NAME(inverse)(1 + NAME(exp)(-2 * x)) - 1; }

#include "transpose.h"
#include "products.h"
#include "recurrent.h"
#include "dense.h"
#include "noise.h"
#include "network.h"
#include "rows.h"

#undef VECTOR
#undef LOOSE
#undef LANES
#undef AT
#undef PANELS
#undef PADDED

/* An LSTM and a GRU layer, forward and backward through time, a dense layer, noise, and lag windows, for the sizes that
 * this package trains: some ten sequences and some hundred units. This is a plain shared library. kernels.py calls it
 * through ctypes, so neither Python's nor PyTorch's headers are needed to build it. setup.py builds it once for each
 * instruction set; the same code serves all, and the compiler's own macros say which set it is for. */
#include <fenv.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

/* A tile of ROWS x 4 vectors stays in registers, beside 4 vectors of one operand and one number of the other. */
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define ROWS 6 /* 32 registers */
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#define ROWS 3 /* 16 registers */
#elif defined(__aarch64__)
#define VECTOR_BYTES 16
#define ROWS 6 /* 32 registers */
#else
#define VECTOR_BYTES 16
#define ROWS 2 /* 16 registers, one of which a product without FMA needs */
#endif
#define WIDE 4    /* vectors in a row of a tile */
#define BLOCK 96  /* rows of a long product that are worked on while they are in the first cache */
#define DEPTH 128 /* numbers along the inner dimension of a product, likewise */
#define INLINE static inline __attribute__((always_inline))
#define LARGER(a, b) ((a) > (b) ? (a) : (b))
#define SMALLER(a, b) ((a) < (b) ? (a) : (b))

#if defined(__SSE__)
#include <immintrin.h>
#endif

typedef float floats __attribute__((vector_size(VECTOR_BYTES)));
typedef double doubles __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t ints __attribute__((vector_size(VECTOR_BYTES)));
#define LANES_OF(x) ((long)(VECTOR_BYTES / sizeof(x)))

/* x, but at least -87 and at most 88, so that e^x and 1 + e^x are finite and not 0. NaN stays NaN. */
INLINE floats bounded(floats x) {
#if defined(__AVX512F__)
  return (floats)_mm512_max_ps(_mm512_set1_ps(-87), _mm512_min_ps(_mm512_set1_ps(88), (__m512)x));
#elif defined(__AVX__)
  return (floats)_mm256_max_ps(_mm256_set1_ps(-87), _mm256_min_ps(_mm256_set1_ps(88), (__m256)x));
#elif defined(__SSE__)
  return (floats)_mm_max_ps(_mm_set1_ps(-87), _mm_min_ps(_mm_set1_ps(88), (__m128)x));
#else
  for (long j = 0; j < LANES_OF(float); j++) x[j] = x[j] > 88 ? 88 : x[j] < -87 ? -87 : x[j];
  return x;
#endif
}

/* e^x to 2e-7: x = n ln 2 + r, a polynomial for e^r, n put into the exponent. */
INLINE floats float_exp(floats x) {
  x = bounded(x);
  floats n = x * 1.44269504f;
  n = (n + 12582912.0f) - 12582912.0f; /* rounds to the nearest whole number */
  floats r = x - n * 0.693359375f + n * 2.12194440e-4f, p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
#if defined(__AVX512F__)
  return (floats)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
  return p * (floats)((__builtin_convertvector(n, ints) + 127) << 23);
#endif
}

/* 1 / x, for x from 1 to 2e38. */
INLINE floats float_inverse(floats x) {
#if defined(__AVX512F__)
  floats guess = (floats)_mm512_rcp14_ps((__m512)x); /* to 6e-5; a step of Newton's squares that */
  return guess * (2 - x * guess);
#else
  return 1 / x;
#endif
}

INLINE doubles double_exp(doubles x) {
  for (long j = 0; j < LANES_OF(double); j++) x[j] = exp(x[j]);
  return x;
}
INLINE doubles double_inverse(doubles x) { return 1 / x; }

/* Philox4x64-10 (Salmon et al., 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"), as NumPy has it: four words of 64
 * random bits from a counter of four words and a key of two, the second of which is 0 here. */
INLINE void philox(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t key, uint64_t *to) {
  uint64_t other = 0;
  for (int round = 0; round < 10; round++) {
    unsigned __int128 p = (unsigned __int128)a * 0xD2E7470EE14C6C93u, q = (unsigned __int128)c * 0xCA5A826395121157u;
    a = (uint64_t)(q >> 64) ^ b ^ key;
    c = (uint64_t)(p >> 64) ^ d ^ other;
    b = (uint64_t)q;
    d = (uint64_t)p;
    key += 0x9E3779B97F4A7C15u;
    other += 0xBB67AE8584CAA73Bu;
  }
  to[0] = a, to[1] = b, to[2] = c, to[3] = d;
}

#define REAL float
#define NAME(x) float_##x
#include "kernels_of.h"
#undef REAL
#undef NAME
#define REAL double
#define NAME(x) double_##x
#include "kernels_of.h"

/* How this thread rounds, and whether it takes denormal numbers for 0: other threads compute the same with it (rows.h). */
long kernels_mode(fenv_t *to) {
  _Static_assert(sizeof *to <= 128, "rows.py has 128 bytes for it");
  return fegetenv(to);
}

/* Increased with every change to the functions that Python calls, or to what they take. */
long kernels_version(void) { return 6; }

/* Whether this processor has the instructions that the library uses. */
long kernels_fit(void) {
#if defined(__x86_64__) && defined(__GNUC__)
#ifdef __FMA__
  if (!__builtin_cpu_supports("fma")) return 0;
#endif
#ifdef __AVX2__
  if (!__builtin_cpu_supports("avx2")) return 0;
#endif
#ifdef __BMI2__
  if (!__builtin_cpu_supports("bmi2")) return 0;
#endif
#ifdef __AVX512F__
  if (!__builtin_cpu_supports("avx512f")) return 0;
#endif
#ifdef __AVX512VL__
  if (!__builtin_cpu_supports("avx512vl")) return 0;
#endif
#ifdef __AVX512DQ__
  if (!__builtin_cpu_supports("avx512dq")) return 0;
#endif
#ifdef __AVX512BW__
  if (!__builtin_cpu_supports("avx512bw")) return 0;
#endif
#endif
  return 1;
}

/* Some linkers want the symbol of a module in everything that setuptools builds. Nothing imports this library as one. */
#define MODULE_(set) PyInit__kernels_##set
#define MODULE(set) MODULE_(set)
void *MODULE(SET)(void) { return 0; }

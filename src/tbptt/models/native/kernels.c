/* An LSTM layer, forward and backward through time, a dense layer with tanh, and noise, for the sizes that this package
 * trains: some ten sequences and some hundred units. This is a plain shared library. kernels.py calls it through ctypes, so
 * neither Python's nor PyTorch's headers are needed to build it. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define ROWS 8
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#define ROWS 4
#else
#define VECTOR_BYTES 16
#define ROWS 8
#endif
#define BLOCK 256 /* rows of a long product that are packed at once */
#define LARGER(a, b) ((a) > (b) ? (a) : (b))
#define ROOM_FOR_BLOCK(n, g, packed) LARGER(packed(BLOCK, n), packed(g, n))

/* e^x to 2e-7: x = n ln 2 + r, a polynomial for e^r, n put into the exponent. NaN stays NaN; the loops over it vectorise. */
static inline float fast_exp(float x) {
  float bounded = x > 88.0f ? 88.0f : x < -87.0f ? -87.0f : x;
  float n = bounded * 1.44269504f;
  n = (n + 12582912.0f) - 12582912.0f; /* rounds to the nearest whole number */
  float r = bounded - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  int32_t bits = ((int32_t)n + 127) << 23;
  float power;
  memcpy(&power, &bits, sizeof power);
  return p * power;
}

/* Philox4x64-10 (Salmon et al., 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"), as NumPy has it: four words of 64
 * random bits from a counter of four words and a key of two, the second of which is 0 here. */
static inline __attribute__((always_inline)) void philox(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t key,
                                                         uint64_t *to) {
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
static inline float float_exp(float x) { return fast_exp(x); }
#include "kernels_of.h"
#undef REAL
#undef NAME
#define REAL double
#define NAME(x) double_##x
static inline double double_exp(double x) { return exp(x); }
#include "kernels_of.h"

/* Increased with every change to the functions that kernels.py calls. */
long kernels_version(void) { return 4; }

/* Whether this processor has the instructions that the library uses. It may have been built on another machine. */
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

/* Some linkers want this symbol in everything that setuptools builds. Nothing imports this library as a module. */
void *PyInit__kernels(void) { return 0; }

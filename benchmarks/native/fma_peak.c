/* The most float32 multiply-adds that one core does, in GFLOP/s (two operations each), by instruction set.

Prints one line of JSON, such as {"avx512": 118.2, "avx2": 117.9, "plain": 58.1}, of the sets that the processor has.
"plain" is what the compiler takes without any option: SSE2 on x86, where multiply and add are two instructions, NEON on
ARM. Twelve sums that do not wait for each other stay in registers, so neither latency nor memory limits it: five cycles
of latency and two units need ten. Best of several repetitions of a few ms of processor time; the sets take turns. */

#include <stdio.h>
#include <time.h>

#define TWELVE(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define BEGIN(I) lanes a##I = y * (float)(I + 1); /* all different, or the compiler would compute one of them */
#define STEP(I) a##I = a##I * x + y;
#define ADD(I) y += a##I;

#define TURNS 400000L
#define REPETITIONS 12

/* Sums as long as `turns` says; what it returns keeps the compiler from leaving them out. */
#define SUMS(NAME, TARGET, LANES)                                         \
    TARGET static float NAME(long turns, float factor, float term) {      \
        typedef float lanes __attribute__((vector_size(4 * (LANES))));    \
        lanes x = {0}, y = {0};                                           \
        x += factor;                                                      \
        y += term;                                                        \
        TWELVE(BEGIN)                                                     \
        for (long i = 0; i < turns; i++) {                                \
            TWELVE(STEP)                                                  \
        }                                                                 \
        TWELVE(ADD)                                                       \
        float sum = 0;                                                    \
        for (int i = 0; i < (LANES); i++) sum += y[i];                    \
        return sum;                                                       \
    }

SUMS(plain, , 4)
#ifdef __x86_64__
SUMS(avx2, __attribute__((target("avx2,fma"))), 8)
SUMS(avx512, __attribute__((target("avx512f"))), 16)
#endif

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static volatile float factor = 0.999f, term = 0.001f, result; /* the compiler does not know them; the sums go to 1 */

static void repeat(float (*sums)(long, float, float), int lanes, double *best) {
    double began = seconds();
    result = sums(TURNS, factor, term);
    double rate = 2e-9 * 12 * lanes * TURNS / (seconds() - began);
    if (rate > *best) *best = rate;
}

int main(void) {
    double best_plain = 0, best_avx2 = 0, best_avx512 = 0;
    for (int i = 0; i < REPETITIONS; i++) {
#ifdef __x86_64__
        if (__builtin_cpu_supports("avx512f")) repeat(avx512, 16, &best_avx512);
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) repeat(avx2, 8, &best_avx2);
#endif
        repeat(plain, 4, &best_plain);
    }
    printf("{");
    if (best_avx512) printf("\"avx512\": %.2f, ", best_avx512);
    if (best_avx2) printf("\"avx2\": %.2f, ", best_avx2);
    printf("\"plain\": %.2f}\n", best_plain);
    return 0;
}

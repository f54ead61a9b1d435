/* Prints how many GFLOP/s of f32 multiply-adds as many processes as asked for do at the same time on
 * this CPU, in registers alone: the ceiling of any kernel that multiplies in f32. Two numbers: each process in
 * its best stretch, of some milliseconds, and over all of its stretches, about a second.
 *
 *   cc -O2 -march=native benches/ceiling.c -o ceiling && ./ceiling 2
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef __AVX512F__
enum { WIDTH = 16 };
#else
enum { WIDTH = 8 };
#endif
typedef float vector __attribute__((vector_size(4 * WIDTH)));

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* Ten chains, more than latency times width of any multiply-add unit so far. */
static float chains(long steps) {
    vector s[10], a, b, sum;
    for (int c = 0; c < 10; c++) s[c] = (vector){1.0f};
    a = (vector){0.5f};
    b = (vector){0.25f};
    __asm__ volatile("" : "+x"(a), "+x"(b));
    for (long i = 0; i < steps; i++) {
#pragma GCC unroll 10
        for (int c = 0; c < 10; c++) s[c] = s[c] * a + b;
    }
    sum = s[0];
    for (int c = 1; c < 10; c++) sum += s[c];
    return sum[0];
}

int main(int argc, char **argv) {
    int processes = argc > 1 ? atoi(argv[1]) : 1;
    enum { STRETCHES = 150 };
    struct rates { double best, whole; };
    struct rates *of = mmap(NULL, processes * sizeof *of, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (processes < 1 || of == MAP_FAILED) return 1;
    for (int p = 0; p < processes; p++) {
        if (fork() == 0) {
            const long steps = 4000000;
            const double flops = steps * 10.0 * WIDTH * 2 * 1e-9;
            volatile float keep;
            double whole = 0;
            for (int stretch = 0; stretch < STRETCHES; stretch++) {
                double begun = now();
                keep = chains(steps);
                double seconds = now() - begun;
                whole += seconds;
                if (flops / seconds > of[p].best) of[p].best = flops / seconds;
            }
            of[p].whole = STRETCHES * flops / whole;
            (void)keep;
            _exit(0);
        }
    }
    while (wait(NULL) > 0) {}
    struct rates sum = {0, 0};
    for (int p = 0; p < processes; p++) {
        sum.best += of[p].best;
        sum.whole += of[p].whole;
    }
    printf("%.1f %.1f\n", sum.best, sum.whole);
    return 0;
}

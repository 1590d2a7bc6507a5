#define _GNU_SOURCE
#include "workloads.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"

size_t workload_memory_bytes(const struct workload *workload)
{
    size_t n = (size_t)workload->number;

    switch (workload->kind) {
    case WORKLOAD_TUMATMUL:
        return n + 1;
    case WORKLOAD_LINPACK:
        return (n * n + n) * sizeof(double);
    default:
        return 0;
    }
}

static int greet(const char *greeting, int nowhere)
{
    char text[64];
    char *end = stpcpy(stpcpy(text, greeting), ", world!\n");

    return write(nowhere, text, (size_t)(end - text)) == end - text ? 0 : 1;
}

static int pi(int64_t n_terms)
{
    volatile double result;
    double sum = 0.0;

    for (int64_t i = 0; i < n_terms; i++)
        sum += (i % 2 ? -1.0 : 1.0) / (2.0 * (double)i + 1.0);
    result = 4.0 * sum;
    (void)result;
    return 0;
}

static int sieve(unsigned char *composite, int64_t limit)
{
    size_t size = (size_t)limit + 1;
    volatile int64_t n_primes = 0;

    if (!composite)
        return CODE_OUT_OF_QUOTA;
    memset(composite, 0, size);
    for (size_t i = 2; i < size; i++) {
        if (composite[i])
            continue;
        n_primes++;
        for (size_t j = i * i; j < size; j += i)
            composite[j] = 1;
    }
    return 0;
}

/* Gaussian elimination with partial pivoting of row k and those below. */
static void eliminate(double *matrix, double *right, size_t n, size_t k)
{
    size_t pivot = k;

    for (size_t i = k + 1; i < n; i++)
        if (fabs(matrix[i * n + k]) > fabs(matrix[pivot * n + k]))
            pivot = i;
    for (size_t j = 0; pivot != k && j < n; j++) {
        double swapped = matrix[k * n + j];
        matrix[k * n + j] = matrix[pivot * n + j];
        matrix[pivot * n + j] = swapped;
    }
    double swapped = right[k];
    right[k] = right[pivot];
    right[pivot] = swapped;
    for (size_t i = k + 1; i < n; i++) {
        double factor = matrix[i * n + k] / matrix[k * n + k];
        for (size_t j = k; j < n; j++)
            matrix[i * n + j] -= factor * matrix[k * n + j];
        right[i] -= factor * right[k];
    }
}

/* The right side is the sum of each row, so that every unknown is 1: the exit code tells whether it came out.
 */
static int linpack(double *matrix, int64_t order)
{
    size_t n = (size_t)order;
    uint32_t random = 1325;

    if (n == 0)
        return 0;
    if (!matrix)
        return CODE_OUT_OF_QUOTA;
    double *right = matrix + n * n;
    for (size_t i = 0; i < n; i++) {
        right[i] = 0.0;
        for (size_t j = 0; j < n; j++) {
            random = random * 3125 % 65536; /* LINPACK's own generator */
            matrix[i * n + j] = ((double)random - 32768.0) / 16384.0 + (i == j ? 4.0 : 0.0);
            right[i] += matrix[i * n + j];
        }
    }
    for (size_t k = 0; k < n; k++)
        eliminate(matrix, right, n, k);
    for (size_t i = n; i-- > 0;) {
        for (size_t j = i + 1; j < n; j++)
            right[i] -= matrix[i * n + j] * right[j];
        right[i] /= matrix[i * n + i];
    }
    for (size_t i = 0; i < n; i++)
        if (!(fabs(right[i] - 1.0) < 1e-3))
            return 1;
    return 0;
}

static int count(int64_t n_turns)
{
    for (volatile int64_t i = 0; i < n_turns; i++)
        ;
    return 0;
}

static int idle(int64_t ms)
{
    const int64_t longest_ns = 3600 * NS_PER_S;
    int64_t until_ns = ms == NOT_GIVEN ? INT64_MAX : monotonic_ns() + ms * NS_PER_MS;

    for (;;) {
        int64_t now_ns = monotonic_ns();
        if (now_ns >= until_ns)
            return 0;
        struct timespec until =
            timespec_of_ns(until_ns - now_ns < longest_ns ? until_ns : now_ns + longest_ns);
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    }
}

int workload_run(const struct workload *workload, struct job_context *context)
{
    switch (workload->kind) {
    case WORKLOAD_SPIN:
        context->spun_ns = spin_for(context->spin, &context->meter, workload->number);
        return 0;
    case WORKLOAD_HEY:
        return greet("hey", context->nowhere);
    case WORKLOAD_NAMASTE:
        return greet("namaste", context->nowhere);
    case WORKLOAD_PI:
        return pi(workload->number);
    case WORKLOAD_TUMATMUL:
        return sieve(context->memory, workload->number);
    case WORKLOAD_LINPACK:
        return linpack(context->memory, workload->number);
    case WORKLOAD_COND_MOD:
        return workload->number % 2 == 0 ? 0 : count(workload->number);
    case WORKLOAD_COND_42:
        return workload->number == 42 ? 0 : count(workload->number);
    case WORKLOAD_IDLE:
        return idle(workload->number);
    case WORKLOAD_EXECUTABLE:
        break; /* executable.c */
    }
    return 1;
}

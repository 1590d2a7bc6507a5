#include "threads.h"

#include <stddef.h>
#include <unistd.h>

/* A list of the longest argument list's pointers fits, and nothing is as big. */
#define STACK_BYTES (128 << 10)
#define TOUCHED_BYTES (16 << 10)

int thread_start(pthread_t *thread, void *(*run)(void *), void *argument)
{
    size_t least = (size_t)sysconf(_SC_THREAD_STACK_MIN) + TOUCHED_BYTES;
    pthread_attr_t attributes;

    pthread_attr_init(&attributes);
    int error = pthread_attr_setstacksize(&attributes, least > STACK_BYTES ? least : STACK_BYTES);
    if (!error)
        error = pthread_create(thread, &attributes, run, argument);
    pthread_attr_destroy(&attributes);
    return error;
}

void __attribute__((noinline)) thread_touch_stack(void)
{
    volatile char stack[TOUCHED_BYTES];

    for (size_t i = 0; i < sizeof stack; i += 1024)
        stack[i] = 0;
}

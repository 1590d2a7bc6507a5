/*
 * For LD_PRELOAD, into QEMU: its processor's thread often rests before it adds what it has executed to the guest's clock
 * (it comes there by a long jump), and its main loop when it wakes up, as if other programs had taken their CPU then.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <time.h>

/* The next definition of what is replaced here. */
#define REAL(function)                                                                                                 \
    static typeof(function) *real;                                                                                     \
    if (real == NULL)                                                                                                  \
    real = (typeof(function) *)dlsym(RTLD_NEXT, #function)

/* One time in 20, by a counter for each thread that jumps about. */
static void rest(long us)
{
    static __thread unsigned int state = 1;
    struct timespec time = {0, us * 1000};

    state = state * 1103515245U + 12345U;
    if ((state >> 8) % 20 == 0)
        nanosleep(&time, NULL);
}

void siglongjmp(sigjmp_buf to, int value)
{
    REAL(siglongjmp);
    rest(100);
    real(to, value);
    __builtin_unreachable();
}

void __longjmp_chk(sigjmp_buf to, int value) __attribute__((noreturn));

/* What siglongjmp() is in a QEMU that was compiled with more checks. */
void __longjmp_chk(sigjmp_buf to, int value)
{
    REAL(__longjmp_chk);
    rest(100);
    real(to, value);
    __builtin_unreachable();
}

int ppoll(struct pollfd *files, nfds_t n_files, const struct timespec *timeout, const sigset_t *signals)
{
    REAL(ppoll);
    int n_ready = real(files, n_files, timeout, signals);

    rest(50);
    return n_ready;
}

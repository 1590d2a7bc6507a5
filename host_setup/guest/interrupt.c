#include "interrupt.h"

#include <sched.h>
#include <setjmp.h>
#include <stddef.h>

static _Thread_local volatile sig_atomic_t armed;  /* the signal may jump to `landing` now */
static _Thread_local volatile sig_atomic_t missed; /* it came while it might not */
static _Thread_local sigjmp_buf landing;
static bool (*is_due)(void);

static void on_signal(int signal)
{
    (void)signal;
    if (armed) {
        armed = 0;
        siglongjmp(landing, 1);
    }
    missed = 1;
}

static void on_check(int signal)
{
    (void)signal;
    if (armed && is_due()) {
        armed = 0;
        siglongjmp(landing, 1);
    }
}

void interrupt_install(bool (*check)(void))
{
    /* No signal mask is saved or changed, so that neither a job's start nor the jump costs a system call. */
    const struct sigaction leave = {.sa_handler = on_signal, .sa_flags = SA_NODEFER};
    const struct sigaction look = {.sa_handler = on_check, .sa_flags = SA_NODEFER | SA_RESTART};

    is_due = check;
    sigaction(INTERRUPT_SIGNAL, &leave, NULL);
    sigaction(INTERRUPT_CHECK_SIGNAL, &look, NULL);
}

void interrupt_forget(void) { missed = 0; }

bool interrupt_run(void (*work)(void *), void *argument)
{
    if (sigsetjmp(landing, 0) != 0)
        return false;
    armed = 1;
    if (missed) { /* it was meant for this work, which was announced before it could be left */
        armed = 0;
        missed = 0;
        return false;
    }
    work(argument);
    armed = 0;
    return true;
}

void interrupt_await(void)
{
    while (!missed)
        sched_yield(); /* its sender runs above us, or on another CPU: this turns at most a few times */
    missed = 0;
}

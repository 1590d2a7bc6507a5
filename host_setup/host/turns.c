/*
 * QEMU's main loop and its emulated processor take turns, so that a guest's time under -icount is a function of what the
 * guest does.
 *
 * An idle guest's clock is set forward by the main loop, to the next timer. It may do so when it finds the processor
 * halted; but a processor says that it is halted (helper_wfi() and the like) some hundred nanoseconds before the
 * instructions that it has executed since its last look at the clock are added to the clock (icount_process_data()). A main
 * loop that comes between sets the clock to the timer, and then those instructions go on top of it: the guest wakes up by
 * as much too late, 2 to 12 us, once in some thousand task sets on a busy host and more often where the thread is made to dawdle there
 * (tests/dawdling.c). QEMU is safe only where it records or replays, when a lock keeps the two apart; this is that lock, without the recording.
 *
 * The rule: the processor executes only while the main loop sleeps (or waits for it), and the main loop, waking up, waits
 * until the processor asks for QEMU's global lock, which it does for each access to a device, and at the end of each slice.
 * It gives up its turn before it waits for the lock, so that no order of locks is added. Who has the global lock is seen
 * by what QEMU exports to its modules: its function that takes it, and whether a thread is a processor's. A QEMU
 * that does not export them runs as ever.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "turns.h"

typedef void lock_function(void *mutex, const char *file, int line);

/* The lock's pthread_mutex_t is its first member. NULL until it was taken for the first time, and where no turns are taken. */
static _Atomic(void *) global_lock;
static lock_function *take_global_lock;
static bool (*in_processor_thread)(void);

/* Each is set by one side before it looks at the other's, so that one of the two sees the other. */
static atomic_int executing;
static atomic_int main_loop_awake = 1;

static __thread bool is_main_loop;
static __thread bool has_turn; /* the processor's */

static void futex(atomic_int *flag, int operation)
{
    const int before = errno; /* QEMU looks at what the call that is replaced here has left */

    syscall(SYS_futex, flag, operation, 1, NULL, NULL, 0);
    errno = before;
}

static void wait_while(atomic_int *flag)
{
    while (atomic_load(flag))
        futex(flag, FUTEX_WAIT_PRIVATE);
}

static void clear(atomic_int *flag)
{
    atomic_store(flag, 0);
    futex(flag, FUTEX_WAKE_PRIVATE);
}

static void begin_executing(void)
{
    for (;;) {
        atomic_store(&executing, 1);
        if (!atomic_load(&main_loop_awake))
            break;
        clear(&executing);
        wait_while(&main_loop_awake);
    }
    has_turn = true;
}

static void end_executing(void)
{
    has_turn = false;
    atomic_store(&executing, 0);
    if (atomic_load(&main_loop_awake))
        futex(&executing, FUTEX_WAKE_PRIVATE);
}

static void main_loop_wakes_up(void)
{
    atomic_store(&main_loop_awake, 1);
    wait_while(&executing);
}

static void main_loop_sleeps(void)
{
    clear(&main_loop_awake);
}

static void lock_global(void *mutex, const char *file, int line)
{
    atomic_store_explicit(&global_lock, mutex, memory_order_relaxed);
    if (has_turn)
        end_executing();
    take_global_lock(mutex, file, line);
}

bool take_turns(int argc, char **argv)
{
    lock_function **taker = (lock_function **)dlsym(RTLD_DEFAULT, "qemu_bql_mutex_lock_func");
    bool counts = false;

    for (int i = 1; i < argc; i++)
        counts = counts || strcmp(argv[i], "-icount") == 0;
    if (taker == NULL) /* its name from QEMU 9 on */
        taker = (lock_function **)dlsym(RTLD_DEFAULT, "bql_mutex_lock_func");
    in_processor_thread = (bool (*)(void))dlsym(RTLD_DEFAULT, "qemu_in_vcpu_thread");
    if (!counts || taker == NULL || in_processor_thread == NULL)
        return false;
    take_global_lock = *taker;
    *taker = lock_global;
    is_main_loop = true;
    return true;
}

static bool is_global(const void *mutex)
{
    return mutex == atomic_load_explicit(&global_lock, memory_order_relaxed) && mutex != NULL;
}

/* The next definition of what is replaced here; constructors of libraries call it before any of ours has run. */
#define REAL(function)                                                                                                 \
    static typeof(function) *real;                                                                                     \
    if (real == NULL)                                                                                                  \
    real = (typeof(function) *)dlsym(RTLD_NEXT, #function)

int pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    REAL(pthread_mutex_unlock);
    bool global = is_global(mutex);
    int error = real(mutex);

    if (global && error == 0 && in_processor_thread())
        begin_executing();
    return error;
}

int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
{
    REAL(pthread_cond_wait);
    bool turns = is_main_loop && is_global(mutex);

    if (turns)
        main_loop_sleeps();
    int error = real(condition, mutex);

    if (turns)
        main_loop_wakes_up();
    return error;
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until)
{
    REAL(pthread_cond_timedwait);
    bool turns = is_main_loop && is_global(mutex);

    if (turns)
        main_loop_sleeps();
    int error = real(condition, mutex, until);

    if (turns)
        main_loop_wakes_up();
    return error;
}

int ppoll(struct pollfd *files, nfds_t n_files, const struct timespec *timeout, const sigset_t *signals)
{
    REAL(ppoll);

    if (is_main_loop)
        main_loop_sleeps();
    int n_ready = real(files, n_files, timeout, signals);

    if (is_main_loop)
        main_loop_wakes_up();
    return n_ready;
}

/* Work that the supervisor can end at any instruction, by a signal to its thread whose handler jumps out of
 * it. */
#ifndef TASKLOADER_INTERRUPT_H
#define TASKLOADER_INTERRUPT_H

#include <signal.h>
#include <stdbool.h>

/* The supervisor's order to leave what is running. */
#define INTERRUPT_SIGNAL SIGUSR1

/* Asks whether to leave, on a timer of the thread's own. */
#define INTERRUPT_CHECK_SIGNAL SIGUSR2

/* Once, for all threads. INTERRUPT_CHECK_SIGNAL ends the work when `is_due`, called from its handler, says
 * so. */
void interrupt_install(bool (*is_due)(void));

/* Forgets a signal that came to this thread when there was nothing more to leave. */
void interrupt_forget(void);

/* Runs `work`; false when the signal ended it before its own end. */
bool interrupt_run(void (*work)(void *), void *argument);

/* Waits for a signal that is known to be on its way, and takes it. */
void interrupt_await(void);

#endif

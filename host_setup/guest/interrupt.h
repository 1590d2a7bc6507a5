/* Work that the supervisor can end at any instruction, by a signal whose handler jumps out of it. One per
 * process. */
#ifndef TASKLOADER_INTERRUPT_H
#define TASKLOADER_INTERRUPT_H

#include <signal.h>
#include <stdbool.h>

/* The supervisor's order to leave what is running. */
#define INTERRUPT_SIGNAL SIGUSR1

/* Asks whether to leave, on a timer of the process's own. */
#define INTERRUPT_CHECK_SIGNAL SIGUSR2

void interrupt_install(void);

/* From now on INTERRUPT_CHECK_SIGNAL ends the work when `is_due`, called from the signal's handler, says so.
 */
void interrupt_install_check(bool (*is_due)(void));

/* Runs `work`; false when the signal ended it before its own end. */
bool interrupt_run(void (*work)(void *), void *argument);

/* Waits for a signal that is known to be on its way, and takes it. */
void interrupt_await(void);

#endif

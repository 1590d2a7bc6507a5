/* The task loader's conversation through shared memory: docs/mailbox.md. */
#ifndef TASKLOADER_MAILBOX_H
#define TASKLOADER_MAILBOX_H

/* Answers requests for as long as the host lets the guest run; returns, with an exit code, only when it
 * cannot begin. */
int mailbox(void);

#endif

/* Threads that shall meet no page fault. */
#ifndef TASKLOADER_THREADS_H
#define TASKLOADER_THREADS_H

#include <pthread.h>

/* Starts a thread with a small stack. Returns 0 or the errno. */
int thread_start(pthread_t *thread, void *(*run)(void *), void *argument);

/* Touches as much of the calling thread's stack as it may use: signals, and what they interrupt. */
void thread_touch_stack(void);

#endif

/* Tells the host something through QEMU's pvpanic device. */
#ifndef TASKLOADER_BELL_H
#define TASKLOADER_BELL_H

/* `word` is `panic` or `ready`. Returns the exit code; what went wrong is on standard error. */
int bell(const char *word);

#endif

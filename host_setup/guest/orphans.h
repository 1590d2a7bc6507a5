/* Processes that a workload's executable left behind outside its process group. */
#ifndef TASKLOADER_ORPHANS_H
#define TASKLOADER_ORPHANS_H

#include <sys/types.h>

/* From now on they become children of this process when their parent ends. */
void orphans_adopt(void);

/* Kills the children of one of the process's threads. The main one's are what executables left behind: with
 * time also what these leave in turn, so again until `orphans_collect` finds none. */
void orphans_kill(pid_t tid);

/* Collects children that have ended. Returns whether any child is left. */
int orphans_collect(void);

#endif

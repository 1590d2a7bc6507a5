/* Processes that a workload's executable left behind outside its process group. */
#ifndef TASKLOADER_ORPHANS_H
#define TASKLOADER_ORPHANS_H

/* From now on they become children of this process when their parent ends. */
void orphans_adopt(void);

/* Kills every child of the process's main thread and, with time, what they leave behind in turn: to be called
 * when no child is wanted any more, and again until `orphans_collect` finds none. */
void orphans_kill(void);

/* Collects children that have ended. Returns whether any child is left. */
int orphans_collect(void);

#endif

#define _GNU_SOURCE
#include "orphans.h"

#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

void orphans_adopt(void) { prctl(PR_SET_CHILD_SUBREAPER, 1UL); }

void orphans_kill(pid_t tid)
{
    char path[64];
    int pid;

    snprintf(path, sizeof path, "/proc/self/task/%d/children", tid);
    FILE *children = fopen(path, "re");
    if (!children)
        return; /* a kernel without this file: the process groups were killed, and that is all we can do */
    while (fscanf(children, "%d", &pid) == 1)
        kill(pid, SIGKILL);
    fclose(children);
}

int orphans_collect(void)
{
    pid_t pid;

    while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
        ;
    return pid == 0;
}

#define _GNU_SOURCE
#include "means.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "orphans.h"

void means_set_up(struct means *means)
{
    int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    orphans_adopt();
    /* Both only help where they are allowed: tasks lock their own memory, and say so when they cannot. */
    if (score >= 0 && write(score, "-1000", 5) < 0)
        errno = 0;
    close(score);
    mlockall(MCL_CURRENT | MCL_FUTURE);
    means->spin = spin_calibrate();
    means->meter_costs = meter_calibrate();
}

void *private_memory(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return memory == MAP_FAILED || madvise(memory, bytes, MADV_DONTFORK) != 0 ? NULL : memory;
}

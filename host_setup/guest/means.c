#define _GNU_SOURCE
#include "means.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "orphans.h"
#include "sched.h"

static void protect(void)
{
    const struct rlimit no_core = {0, 0};
    int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    /* All of these only help where they are allowed. */
    if (score >= 0 && write(score, "-1000", 5) < 0)
        errno = 0;
    close(score);
    setrlimit(RLIMIT_CORE, &no_core);
    /* What there is now is here to stay; of what comes, such as the threads' stacks, only what is touched. */
    mlockall(MCL_CURRENT | MCL_FUTURE);
    mlockall(MCL_FUTURE | MCL_ONFAULT);
}

int means_set_up(struct means *means)
{
    means->nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (means->nowhere < 0)
        return errno;
    if (rt_runtime_read(&means->rt_runtime_us) != 0)
        means->rt_runtime_us = RT_RUNTIME_DEFAULT_US;
    orphans_adopt();
    protect();
    means->spin = spin_calibrate();
    means->meter_costs = meter_calibrate();
    return 0;
}

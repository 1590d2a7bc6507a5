#define _GNU_SOURCE
#include "job_memory.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "workloads.h"

/* Left to the kernel, which kills when it has nothing left. */
#define RESERVE_BYTES ((uint64_t)8 << 20)

/* What the kernel could make free: of a computer with disks most of the memory is a cache. */
static uint64_t available_bytes(void)
{
    static const char key[] = "MemAvailable:";
    char text[512] = "";
    int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    const char *line = n < 0 ? NULL : strstr(text, key);

    if (fd >= 0)
        close(fd);
    return line ? strtoull(line + strlen(key), NULL, 10) * 1024 : 0;
}

static bool is_there(uint64_t bytes)
{
    struct sysinfo info;
    uint64_t wanted = bytes + RESERVE_BYTES;

    if (sysinfo(&info) == 0 && wanted <= (uint64_t)info.freeram * info.mem_unit)
        return true;
    return wanted <= available_bytes();
}

void job_memory_get(struct shared *shared)
{
    for (int i = 0; i < shared->set->head.n_tasks; i++) {
        const struct task *task = &shared->set->tasks[i];
        size_t bytes = workload_memory_bytes(&task->workload);
        if (bytes == 0 || (task->mem_limit_bytes != NOT_GIVEN && bytes > (size_t)task->mem_limit_bytes) ||
            !is_there(bytes))
            continue;
        void *memory =
            mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (memory == MAP_FAILED)
            continue;
        shared->tasks[i].memory = memory;
        shared->tasks[i].memory_bytes = bytes;
    }
}

void job_memory_release(struct shared *shared)
{
    for (int i = 0; i < shared->set->head.n_tasks; i++)
        if (shared->tasks[i].memory)
            munmap(shared->tasks[i].memory, shared->tasks[i].memory_bytes);
}

/* taskloader: runs task sets inside a guest. See docs/task-loader.md. */
#include <stdio.h>
#include <string.h>

#include "bell.h"
#include "genode.h"
#include "mailbox.h"
#include "serve.h"
#include "taskset.h"

static int usage(void)
{
    fprintf(stderr, "usage: taskloader serve | mailbox | genode PORT [ADDRESS] | bell panic|ready | version\n");
    return 2;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "serve") == 0)
        return serve();
    if (argc == 2 && strcmp(argv[1], "mailbox") == 0)
        return mailbox();
    if ((argc == 3 || argc == 4) && strcmp(argv[1], "genode") == 0)
        return genode(argv[2], argc == 4 ? argv[3] : "0.0.0.0");
    if (argc == 3 && strcmp(argv[1], "bell") == 0)
        return bell_command(argv[2]);
    if (argc == 2 && strcmp(argv[1], "version") == 0) {
        printf("taskloader, protocol %d\n", PROTOCOL_VERSION);
        return 0;
    }
    return usage();
}

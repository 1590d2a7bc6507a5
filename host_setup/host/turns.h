#include <stdbool.h>

/*
 * Have QEMU's main loop and its emulated processor take turns; called before main(), in its thread. turns.c says why.
 * False where that cannot be, or need not: without -icount among its arguments.
 */
bool take_turns(int argc, char **argv);

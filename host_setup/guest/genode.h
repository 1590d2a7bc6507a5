/* The task loader's conversation in the words of another: docs/genode.md. */
#ifndef TASKLOADER_GENODE_H
#define TASKLOADER_GENODE_H

/* A client has asked for a reboot. */
#define EXIT_REBOOT 4

/* Serves one client after the other on a TCP port (0: a free one, which is told on standard output) of an
 * IPv4 address, until SIGTERM, SIGINT, SIGHUP, or a client's REBOOT; returns the exit code. */
int genode(const char *port, const char *address);

#endif

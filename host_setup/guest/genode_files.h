/* Programs that came over the Genode protocol; they stay until the guest ends. */
#ifndef TASKLOADER_GENODE_FILES_H
#define TASKLOADER_GENODE_FILES_H

#include "genode_input.h"

struct genode_files {
    uint64_t room_bytes; /* for more of them */
    int n;
    int fd; /* of the one that is coming; -1: it is not kept */
    uint64_t bytes;
    char name[GENODE_NAME_FIELD + 1];
};

/* Makes the folder. Returns 0 or the errno. */
int genode_files_open(struct genode_files *files);

/* Nothing here fails towards the client, which could not be told: what is not kept is not there when it is
 * started. Not kept are files without a good name, or without room; what was there under the name is gone
 * all the same. */
void genode_file_begin(struct genode_files *files, const char *name, uint32_t bytes);
void genode_file_piece(struct genode_files *files, struct slice piece);
void genode_file_end(struct genode_files *files);

/* Forgets what is not whole. */
void genode_file_abandon(struct genode_files *files);

#endif

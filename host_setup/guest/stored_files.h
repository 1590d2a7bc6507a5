/* Programs of the user's that came through the mailbox. */
#ifndef TASKLOADER_STORED_FILES_H
#define TASKLOADER_STORED_FILES_H

#include "mailbox_layout.h"

/* Makes the folder. Returns 0 or the errno. */
int stored_files_open(void);

/* Stores what lies at `bytes` as an executable file, whole or not at all, unless a file of that name is there
 * already. False with `fault` filled when it cannot. `go_on` is called time and again meanwhile. */
bool stored_file_put(const struct file_entry *file, const char *bytes, void (*go_on)(void *), void *argument,
                     struct fault *fault);

#endif

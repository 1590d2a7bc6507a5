/* The task loader's conversation: requests in, replies and events out. */
#ifndef TASKLOADER_SERVE_H
#define TASKLOADER_SERVE_H

/* Serves standard input and output until `quit`, the end of the input, or until nobody reads any more;
 * returns the exit code. */
int serve(void);

#endif

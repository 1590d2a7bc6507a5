/* Parses the lines of standard input as the task loader would and prints what it makes of each: `ok VERB` or
 * `fault CODE`. */
#include <stdio.h>
#include <unistd.h>

#include "line_reader.h"
#include "request.h"

int main(void)
{
    static struct line_reader reader;
    static struct request request;
    struct fault fault;
    const char *line;
    size_t length;
    enum line what;

    do {
        while ((what = line_next(&reader, &line, &length)) != LINE_NONE) {
            if (what == LINE_TOO_LONG)
                printf("fault overlong\n");
            else if (request_parse(line, length, &request, &fault))
                printf("ok %d\n", request.verb);
            else
                printf("fault %s\n", fault.code);
        }
    } while (line_read(&reader, STDIN_FILENO) > 0);
    return 0;
}

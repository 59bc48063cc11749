/* progress: the output of --watch for one unified view. The server may not be trustworthy: all text is sanitized
 * (sanitize.h). */
#ifndef PROGRESS_H
#define PROGRESS_H

#include "lib/buf.h"
#include "config/provider.h"

enum { PROGRESS_TASK_SIZE = 160, PROGRESS_TEXT_SIZE = 512, PROGRESS_LINE_MAX = 2048 };

struct progress {
    char task[PROGRESS_TASK_SIZE]; /* "sora/task_1", ASCII */
    enum state state;
    int percent;                    /* -1: unknown */
    char error[PROGRESS_TEXT_SIZE]; /* "" for none */
    struct list results;            /* of char *: their URLs */
};

/* False if the data is not a unified view; then nothing needs to be freed. */
MUST_CHECK bool progress_read(const char *data, size_t len, struct progress *ret);
void progress_done(struct progress *progress); /* all zero is allowed */

/* "sora/task_1 running 42 %", "sora/task_1 failed: the prompt was refused". */
void progress_line(const struct progress *progress, char out[static PROGRESS_LINE_MAX]);

/* "sora/task_1  running  [#######.........]  42 %  1:05", in fewer than `width` columns. */
void progress_bar(const struct progress *progress, int64_t elapsed_s, int width,
                  char out[static PROGRESS_LINE_MAX]);

/* The detail of a problem document; "" if there is none. */
void progress_problem(const char *data, size_t len, char out[static PROGRESS_TEXT_SIZE]);

#endif

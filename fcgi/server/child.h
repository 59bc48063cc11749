/* child: starts the master's child processes, which are this program, too: workers, and the check of a configuration. */
#ifndef CHILD_H
#define CHILD_H

#include <uv.h>

#include "lib/util.h"

enum { CHILD_FDS_MAX = 8 };

/* Executes args[0]; the child's descriptor i is a copy of fds[i], or /dev/null where that is -1. Its environment lacks
 * the variables that are for the master alone. The pid, or a negative error of libuv. The caller waits for the child:
 * libuv does not. */
MUST_CHECK int child_start(uv_loop_t *loop, const char *const *args, const int *fds, int n_fds);

#endif

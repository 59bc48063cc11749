/* child: starts the master's child processes: workers, and the check of a configuration. Both execute this
 * program. */
#ifndef CHILD_H
#define CHILD_H

#include <uv.h>

#include "lib/util.h"

enum { CHILD_FDS_MAX = 8 };

/* Executes args[0]; the child's descriptor i is a copy of fds[i], or /dev/null where that is -1. Variables
 * meant for the master alone are removed from its environment. Returns the pid, or a negative error of libuv.
 * The caller must wait for the child; libuv does not. */
MUST_CHECK int child_start(uv_loop_t *loop, const char *const *args, const int *fds, int n_fds);

#endif

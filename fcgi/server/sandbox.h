/* sandbox: restricts a worker to the system calls that it needs (seccomp).
 *
 * An intruder who runs code in a worker can still query upstreams and Redis as the worker does, but cannot
 * start a program, write a file or inspect another process. */
#ifndef SANDBOX_H
#define SANDBOX_H

#include "lib/util.h"

/* Protects a process that holds secrets: disables core files and ptrace. It also makes io_uring_setup fail,
 * in this process and in those that it starts. Call this before the first loop is created: libuv 1.45 and
 * later create a ring for each loop, and operations on a ring bypass seccomp. sandbox_enter() reports a
 * failure. */
void sandbox_protect_process(void);

/* Loads the filter for this process and its threads, irrevocably. Returns 0, or a negative errno; then no
 * filter is loaded. */
MUST_CHECK int sandbox_enter(void);

#endif

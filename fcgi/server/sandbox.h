/* sandbox: lets a worker make the system calls that it needs, and no others (seccomp).
 *
 * An intruder who runs code in a worker can still ask what the worker may ask, but cannot start a program, write a file or
 * inspect another process. */
#ifndef SANDBOX_H
#define SANDBOX_H

#include "lib/util.h"

/* For a process with secrets in its memory: no core file, no ptrace. And io_uring_setup fails from now on, also in the
 * programs that the process starts. Call this before the first loop is created: libuv 1.45 and later create a ring for
 * each loop, and the operations of a ring bypass seccomp. A failure shows in sandbox_enter(). */
void sandbox_protect_process(void);

/* For this process and its threads, irrevocably. 0; or a negative errno, and nothing has changed. */
MUST_CHECK int sandbox_enter(void);

#endif

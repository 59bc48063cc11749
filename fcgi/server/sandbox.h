/* sandbox: the system calls that a worker needs, and no others (seccomp).
 *
 * Whoever finds a way to run code of his in a worker can still ask what the worker can ask, but start no
 * program, write no file, look into no other process. */
#ifndef SANDBOX_H
#define SANDBOX_H

#include "lib/util.h"

/* For this process and its threads, for good. 0, or a negative errno: then nothing has changed. */
MUST_CHECK int sandbox_enter(void);

#endif

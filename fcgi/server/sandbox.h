/* sandbox: the system calls that a worker needs, and no others (seccomp).
 *
 * Whoever finds a way to run code of his in a worker can still ask what the worker can ask, but start no
 * program, write no file, look into no other process. */
#ifndef SANDBOX_H
#define SANDBOX_H

#include "lib/util.h"

/* io_uring_setup fails from now on, in this process and in the programs that it starts. Call it before the first loop
 * is made: libuv 1.45 and later make a ring for each loop, and the operations of a ring bypass seccomp. A failure shows
 * in sandbox_enter(). */
void sandbox_refuse_io_uring(void);

/* For this process and its threads, for good. 0, or a negative errno: then nothing has changed. */
MUST_CHECK int sandbox_enter(void);

#endif

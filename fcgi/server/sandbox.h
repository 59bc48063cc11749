/* sandbox: restricts a worker or the status server to the rights that a worker needs: its user, no
 * capabilities, few files (Landlock) and few system calls (seccomp).
 *
 * An intruder who runs code in a worker has the worker's memory: its keys, link secrets and cache. He can
 * query upstreams and Redis as the worker does, but cannot start a program, write a file, read files other
 * than those of the system's libraries and configuration, or inspect another process. */
#ifndef SANDBOX_H
#define SANDBOX_H

#include <sys/types.h>

#include "lib/util.h"

/* Look up a user or a group that the configuration names, by name or by number. Any number is valid; a name must
 * be known to the system. sandbox_find_group returns 0 or -1. */
MUST_CHECK bool sandbox_has_user(const char *user);
MUST_CHECK int sandbox_find_group(const char *group, gid_t *ret_gid);

/* If the process runs as root, changes to the user and the groups of its account; a number without an account
 * gets only the group of the same number. Drops all permitted capabilities, and with them the ambient ones that
 * an unprivileged master may have. Returns an error (allocated), or NULL. */
char *sandbox_become(const char *user);

/* Becomes the user, with its groups and the one capability that the shipped unit gives the master: to read all
 * files. Returns an error (allocated), or NULL. A process that is not root must be that user already. */
char *sandbox_read_as(const char *user);

/* Protects a process that holds secrets: disables core files and ptrace. It also makes io_uring_setup fail,
 * in this process and in those that it starts. Call this before the first loop is created: libuv 1.45 and
 * later create a ring for each loop, and operations on a ring bypass seccomp. sandbox_enter() reports a
 * failure. */
void sandbox_protect_process(void);

/* Restricts this process, irrevocably, to the files that name lookup and TLS read, and to the system calls in
 * sandbox.c. Requires PR_SET_NO_NEW_PRIVS. If this system lacks Landlock or seccomp, logs it and
 * continues. */
void sandbox_enter(void);

#endif

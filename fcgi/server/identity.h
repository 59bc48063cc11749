/* identity: the users and groups that the configuration names, by name or by number, and how a worker becomes
 * one. */
#ifndef IDENTITY_H
#define IDENTITY_H

#include <sys/types.h>

#include "lib/util.h"

/* Look up a user or a group. Any number is valid; a name must be known to the system. Return 0, or -1. */
MUST_CHECK int identity_user(const char *user, uid_t *ret_uid);
MUST_CHECK int identity_group(const char *group, gid_t *ret_gid);

/* If the process runs as root, changes to the user and the groups of its account; a number without an account
 * gets only the group of the same number. Otherwise only drops the capabilities of the process. Returns an
 * error (allocated), or NULL. */
char *identity_become(const char *user);

#endif

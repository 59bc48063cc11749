/* identity: the users and groups that the configuration names, by name or by number, and how a worker becomes one. */
#ifndef IDENTITY_H
#define IDENTITY_H

#include <sys/types.h>

#include "lib/util.h"

/* Every number is a user and a group; a name is one if the system knows it. 0, or -1. */
MUST_CHECK int identity_user(const char *user, uid_t *ret_uid);
MUST_CHECK int identity_group(const char *group, gid_t *ret_gid);

/* From root to the user and the groups of the user's account; a number without an account gets the group of the same
 * number and no other. Not from root, only gives up what capabilities the process has. An error (allocated), or NULL. */
char *identity_become(const char *user);

#endif

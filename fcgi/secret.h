/* secret: the files that hold one secret each - a key, a password, what links are signed with. */
#ifndef SECRET_H
#define SECRET_H

#include "files.h"
#include "vault.h"

/* The one line of such a file, at least `min_len` characters; vault_free() it. NULL with *ret_why (allocated:
 * "must hold one line of visible ASCII characters"), which never repeats what the file holds. */
char *secret_read(struct files *files, const char *path, size_t min_len, char **ret_why);

#endif

/* secret: the files that hold one secret each - a key, a password, what links are signed with. */
#ifndef SECRET_H
#define SECRET_H

#include "lib/files.h"
#include "lib/vault.h"

enum { POOL_KEYS_MAX = 64, KEY_MARK_SIZE = 9 };

/* The one line of such a file, at least `min_len` characters; vault_free() it. NULL with *ret_why (allocated:
 * "must hold one line of visible ASCII characters"), which never repeats what the file holds. */
char *secret_read(struct files *files, const char *path, size_t min_len, char **ret_why);

/* The mark of a key, by which logs and Redis tell it from others: the first digits of its SHA-256. */
void key_mark(const char *key, char out[static KEY_MARK_SIZE]);

#endif

/* vault: memory for secrets - locked, so that it never comes to a disk; in no core file; wiped when freed.
 *
 * Each secret has pages of its own: there are few of them. Where the system lets no more memory be locked
 * (RLIMIT_MEMLOCK) the rest of this holds all the same. */
#ifndef VAULT_H
#define VAULT_H

#include "lib/util.h"

/* Never NULL; zeroed. */
void *vault_alloc(size_t size) NEVER_NULL;
char *vault_strndup(const char *text, size_t len) NEVER_NULL;

void vault_free(void *secret); /* NULL is allowed */

/* Whether all that is in it is locked. */
bool vault_is_locked(void);

/* At the end of a process: whether every secret was freed. */
bool vault_is_empty(void);

#endif

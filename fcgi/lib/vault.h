/* vault: memory for secrets - mlocked, so it is never swapped out; excluded from core dumps; wiped when
 * freed.
 *
 * Each secret has its own pages. If the system allows no more locked memory (RLIMIT_MEMLOCK), the secret is
 * not locked, but everything else still applies. */
#ifndef VAULT_H
#define VAULT_H

#include "lib/util.h"

/* Never NULL; zeroed. */
void *vault_alloc(size_t size) NEVER_NULL;
char *vault_strndup(const char *text, size_t len) NEVER_NULL;

void vault_free(void *secret); /* NULL is allowed */

/* Whether all memory of the vault is locked. */
bool vault_is_locked(void);

/* Whether every secret was freed; checked before exit. */
bool vault_is_empty(void);

#endif

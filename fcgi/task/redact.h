/* redact: removes secrets from the upstream's strings before they enter a view. */
#ifndef REDACT_H
#define REDACT_H

#include "lib/buf.h"
#include "lib/files.h"

/* The credentials sent to the upstream, in all their forms. */
struct secrets {
    const char *items[3 * POOL_KEYS_MAX + 1]; /* (ref) NULL: no more */
};

/* Adds `text` as a JSON string, with "[redacted]" in place of each secret; `secrets` may be NULL. */
void redact_json_string(struct buf *out, const char *text, size_t len, const struct secrets *secrets);

#endif

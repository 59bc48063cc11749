/* redact: strings of the upstream's on their way into a view, without the secret that it may repeat. */
#ifndef REDACT_H
#define REDACT_H

#include "lib/buf.h"
#include "lib/files.h"

/* What the upstream was given to know us by: each key, in each of its forms. */
struct secrets {
    const char *items[3 * POOL_KEYS_MAX + 1]; /* (ref) NULL: no more */
};

/* `text` as a JSON string with "[redacted]" wherever a secret stood; `secrets` may be NULL. */
void redact_json_string(struct buf *out, const char *text, size_t len, const struct secrets *secrets);

#endif

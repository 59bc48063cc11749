/* redact: strings of the upstream's on their way into a view, without the secret that it may repeat. */
#ifndef REDACT_H
#define REDACT_H

#include "buf.h"

/* `text` as a JSON string with "[redacted]" wherever `secret` stood; `secret` may be NULL. */
void redact_json_string(struct buf *out, const char *text, size_t len, const char *secret);

#endif

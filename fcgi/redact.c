/* redact: see redact.h. */
#include "redact.h"

#include <string.h>

void redact_json_string(struct buf *out, const char *text, size_t len, const char *secret)
{
    size_t secret_len = secret ? strlen(secret) : 0;
    const char *hit = secret_len > 0 ? memmem(text, len, secret, secret_len) : NULL;
    if (hit == NULL) {
        buf_add_json_string(out, text, len);
        return;
    }
    struct buf clean;
    buf_init(&clean, out->max);
    for (; hit != NULL; hit = memmem(text, len, secret, secret_len)) {
        buf_add(&clean, text, (size_t)(hit - text));
        buf_puts(&clean, "[redacted]");
        len -= (size_t)(hit - text) + secret_len;
        text = hit + secret_len;
    }
    buf_add(&clean, text, len);
    buf_add_json_string(out, clean.data, clean.len);
    out->failed |= clean.failed;
    buf_done(&clean);
}

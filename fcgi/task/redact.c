/* redact: see redact.h. */
#include "task/redact.h"

#include <string.h>

/* The first occurrence of any secret, or NULL; the longest one there, as one secret may begin with another. */
static const char *find(const struct secrets *secrets, const char *text, size_t len, size_t *ret_len)
{
    const char *first = NULL;
    for (size_t i = 0; secrets != NULL && secrets->items[i] != NULL; i++) {
        size_t secret_len = strlen(secrets->items[i]);
        const char *hit = secret_len > 0 ? memmem(text, len, secrets->items[i], secret_len) : NULL;
        if (hit != NULL && (first == NULL || hit < first || (hit == first && secret_len > *ret_len))) {
            first = hit;
            *ret_len = secret_len;
        }
    }
    return first;
}

void redact_json_string(struct buf *out, const char *text, size_t len, const struct secrets *secrets)
{
    size_t secret_len = 0;
    const char *hit = find(secrets, text, len, &secret_len);
    if (hit == NULL) {
        buf_add_json_string(out, text, len);
        return;
    }
    struct buf clean;
    buf_init(&clean, out->max);
    for (; hit != NULL; hit = find(secrets, text, len, &secret_len)) {
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

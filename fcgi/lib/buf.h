/* buf: a growing buffer with a maximum size.
 *
 * An addition that would exceed the maximum adds nothing and marks the buffer as failed; later additions fail, too. So a
 * sequence of additions needs one check, at its end. After the first addition, data is NUL-terminated.
 */
#ifndef BUF_H
#define BUF_H

#include <stddef.h>
#include <string.h>

#include "lib/util.h"

struct buf {
    char *data;  /* allocated; NULL before the first addition */
    size_t len;  /* bytes used */
    size_t cap;  /* bytes allocated, at most max + 1 */
    size_t max;  /* bytes allowed */
    bool failed; /* an addition did not fit */
};

void buf_init(struct buf *b, size_t max);
void buf_done(struct buf *b);

/* The same for secrets: the memory is allocated once, so that growing leaves no copies, and wiped at the end. */
void buf_init_secret(struct buf *b, size_t max);
void buf_done_secret(struct buf *b);

/* Empties the buffer and clears failed; keeps the memory. */
void buf_reset(struct buf *b);

/* Makes room for `more` bytes and the NUL; false, and failed, if that would exceed the maximum. */
bool buf_reserve(struct buf *b, size_t more);

/* Inline, like buf_puts, because the compiler knows the length of a literal. */
static inline void buf_add(struct buf *b, const void *data, size_t len)
{
    if ((b->failed || len >= b->cap - b->len) && !buf_reserve(b, len))
        return;
    if (len > 0)
        memcpy(b->data + b->len, data, len);
    b->len += len;
    b->data[b->len] = '\0';
}

static inline void buf_puts(struct buf *b, const char *text)
{
    buf_add(b, text, strlen(text));
}

void buf_putc(struct buf *b, char c);
void buf_add_int(struct buf *b, int64_t value); /* decimal; buf_addf costs ten times as much */
void buf_addf(struct buf *b, const char *format, ...) PRINTF(2, 3);

/* Adds `text` as a JSON string with its quotes. UTF-8 and '/' are not escaped. */
void buf_add_json_string(struct buf *b, const char *text, size_t len);

/* Adds `text` with all but the unreserved characters of RFC 3986 percent-encoded. */
void buf_add_percent(struct buf *b, const char *text);

#endif

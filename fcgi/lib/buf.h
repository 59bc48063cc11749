/* buf: bytes that grow up to a maximum set at birth.
 *
 * An addition that would pass the maximum adds nothing and marks the buffer as failed for good, so a
 * sequence of additions is checked once, at its end. data is always NUL-terminated once anything was added.
 */
#ifndef BUF_H
#define BUF_H

#include <stddef.h>

#include "lib/util.h"

struct buf {
    char *data;  /* allocated, or NULL while empty */
    size_t len;  /* bytes used */
    size_t cap;  /* bytes allocated */
    size_t max;  /* bytes allowed */
    bool failed; /* an addition did not fit */
};

void buf_init(struct buf *b, size_t max);
void buf_done(struct buf *b);

/* As buf_init and buf_done, for what holds secrets: all its memory is taken at once, so that no part of them
 * stays behind where it grew, and wiped at the end. */
void buf_init_secret(struct buf *b, size_t max);
void buf_done_secret(struct buf *b);

/* Empty again, memory kept, failure forgotten. */
void buf_reset(struct buf *b);

void buf_add(struct buf *b, const void *data, size_t len);
void buf_puts(struct buf *b, const char *text);
void buf_putc(struct buf *b, char c);
void buf_add_int(struct buf *b, int64_t value); /* decimal; buf_addf costs ten times as much */
void buf_addf(struct buf *b, const char *format, ...) PRINTF(2, 3);

/* `text` as a JSON string, quotes included. UTF-8 and '/' stay as they are. */
void buf_add_json_string(struct buf *b, const char *text, size_t len);

/* Percent-encodes all but the unreserved characters of RFC 3986. */
void buf_add_percent(struct buf *b, const char *text);

#endif

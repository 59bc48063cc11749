/* blob: immutable bytes that several objects share, and answers that consist of them.
 *
 * A snapshot has its views in blobs, and an answer refers to these. So many slow clients of one task keep one copy of
 * its view in memory. */
#ifndef BLOB_H
#define BLOB_H

#include <stdbool.h>
#include <stddef.h>

struct blob {
    unsigned refs;
    unsigned readers; /* how many of these are answers that clients have not read yet */
    size_t len;
    char data[]; /* a NUL follows */
};

/* A copy of the bytes. The caller owns the one reference. */
struct blob *blob_new(const char *data, size_t len);
void blob_unref(struct blob *b);

/* References of answers that clients have not read yet. They return the bytes that are kept or released with this one:
 * none while there are others. */
size_t blob_keep(struct blob *b);
size_t blob_release(struct blob *b);

/* The body of an answer: text with blobs in it. It owns neither. */
struct body_blob {
    size_t at; /* the length of the text before it */
    struct blob *blob;
};

struct body {
    const char *text;
    size_t text_len;
    const struct body_blob *blobs; /* in the order of `at` */
    size_t n_blobs;
};

size_t body_len(const struct body *b);

/* A position in a body. Zeros: its beginning. */
struct body_position {
    size_t text; /* how much of the text precedes it, */
    size_t blob; /* how many blobs, */
    size_t byte; /* and how much of the next one */
};

bool body_is_read(const struct body *b, const struct body_position *at);

/* Moves over up to `max` contiguous bytes, which *ret_data points to. Returns how many; 0 also for an empty blob. */
size_t body_read(const struct body *b, struct body_position *at, size_t max, const char **ret_data);

#endif

/* blob: immutable bytes that several objects share, and the bodies of answers, which consist of text and
 * blobs.
 *
 * A snapshot keeps its views in blobs, and answers refer to them, so all slow clients of a task share one
 * copy of its view. */
#ifndef BLOB_H
#define BLOB_H

#include <stdbool.h>
#include <stddef.h>

struct blob {
    unsigned refs;
    unsigned readers; /* how many of these belong to answers that clients have not read yet */
    size_t len;
    char data[]; /* a NUL follows */
};

/* Copies the bytes. The caller owns the only reference. */
struct blob *blob_new(const char *data, size_t len);
void blob_unref(struct blob *b);

/* Take and drop a reference for an answer that its client has not read yet. They return the number of bytes
 * that the first of these references keeps in memory, or the last one releases; 0 for the others. */
size_t blob_keep(struct blob *b);
size_t blob_release(struct blob *b);

/* The body of an answer: text with blobs inserted. It owns neither. */
struct body_blob {
    size_t at; /* the length of the text that precedes it */
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
    size_t text; /* bytes of the text that precede it */
    size_t blob; /* blobs that precede it */
    size_t byte; /* bytes of the next blob that precede it */
};

bool body_is_read(const struct body *b, const struct body_position *at);

/* Advances by up to `max` contiguous bytes and points *ret_data at them. Returns their number, which is also
 * 0 for an empty blob. */
size_t body_read(const struct body *b, struct body_position *at, size_t max, const char **ret_data);

#endif

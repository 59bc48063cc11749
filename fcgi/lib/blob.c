/* blob: see blob.h. */
#include "lib/blob.h"

#include <stdlib.h>
#include <string.h>

#include "lib/util.h"

struct blob *blob_new(const char *data, size_t len)
{
    struct blob *b = xcalloc(1, sizeof(*b) + len + 1);
    b->refs = 1;
    b->len = len;
    if (len > 0)
        memcpy(b->data, data, len);
    return b;
}

void blob_unref(struct blob *b)
{
    if (--b->refs == 0)
        free(b);
}

size_t blob_keep(struct blob *b)
{
    b->refs++;
    return b->readers++ == 0 ? b->len : 0;
}

size_t blob_release(struct blob *b)
{
    size_t released = --b->readers == 0 ? b->len : 0;
    blob_unref(b);
    return released;
}

size_t body_len(const struct body *b)
{
    size_t len = b->text_len;
    for (size_t i = 0; i < b->n_blobs; i++)
        len += b->blobs[i].blob->len;
    return len;
}

bool body_is_read(const struct body *b, const struct body_position *at)
{
    return at->text == b->text_len && at->blob == b->n_blobs;
}

size_t body_read(const struct body *b, struct body_position *at, size_t max, const char **ret_data)
{
    const struct body_blob *next = at->blob < b->n_blobs ? &b->blobs[at->blob] : NULL;
    size_t text_end = next != NULL ? next->at : b->text_len;
    if (next == NULL || at->text < text_end) {
        size_t n = text_end - at->text < max ? text_end - at->text : max;
        *ret_data = b->text + at->text;
        at->text += n;
        return n;
    }
    size_t left = next->blob->len - at->byte, n = left < max ? left : max;
    *ret_data = next->blob->data + at->byte;
    at->byte += n;
    if (at->byte == next->blob->len) {
        at->blob++;
        at->byte = 0;
    }
    return n;
}

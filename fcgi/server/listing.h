/* listing: facts in sections, written as JSON for programs or as plain text for people.
 *
 *     listing_open -> listing_section -> listing_row -> listing_text, listing_number ... -> listing_close
 *
 * A section is a list of rows with the same fields, or one row alone. */
#ifndef LISTING_H
#define LISTING_H

#include "lib/buf.h"

struct listing {
    struct buf *out; /* (ref) */
    bool text;       /* for people */
    bool list;       /* the section may have several rows */
    size_t sections;
    size_t rows;
    size_t fields;
    struct buf head; /* text: the names of the fields */
    struct buf row;
};

void listing_open(struct listing *listing, struct buf *out, bool text);
void listing_close(struct listing *listing);

/* `list` false: one row follows. */
void listing_section(struct listing *listing, const char *name, bool list);
void listing_row(struct listing *listing);

/* What is neither printable nor ASCII is shown as '?', but for "…". */
void listing_text(struct listing *listing, const char *name, const char *value);
void listing_number(struct listing *listing, const char *name, int64_t value);

/* With three digits behind the point. */
void listing_share(struct listing *listing, const char *name, double value);

#endif

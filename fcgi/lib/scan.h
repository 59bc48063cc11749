/* scan: the tokens of a JSON text, one after the other, and where in the text things stand.
 *
 * Checking the grammar, blanking comments, finding doubled keys and finding lines are all readers of this
 * stream. */
#ifndef SCAN_H
#define SCAN_H

#include "lib/util.h"

struct scanner {
    const char *at;
    const char *end;
    const char *why; /* the first error, static text */
    bool comments;   /* those of C and C++ are passed over */
};

enum token { T_END, T_ERROR, T_PUNCTUATION, T_STRING, T_NUMBER, T_WORD };

/* The next token, which begins at *ret_start and ends at s->at. */
enum token scan(struct scanner *s, const char **ret_start);

/* The line, from 1, of a place in the text. */
size_t scan_line_at(const char *text, const char *at);

/* For a text that is known to be well-formed: the line of the second of two equal keys of one object, and
 * that of the value at a JSON pointer; 1 when there is none. */
size_t scan_line_of_double(const char *text, size_t len);
size_t scan_line_of(const char *text, size_t len, const char *pointer);

#endif

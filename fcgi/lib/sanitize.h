/* sanitize: text from outside, made fit for a terminal and for a line of a log. */
#ifndef SANITIZE_H
#define SANITIZE_H

#include "lib/util.h"

/* How many bytes the character of UTF-8 at `at` has (RFC 3629: the shortest form, no surrogates, up to U+10FFFF); 0: there
 * is none. */
int utf8_len(const char *at, const char *end);

/* Copies `text`, as much of it as `size` holds, and ends it with a NUL. What would do more than be seen - control characters,
 * what turns the direction of writing, what is not UTF-8 - becomes an escape: "\n", "\x1b". The length. */
size_t sanitize_copy(char *out, size_t size, const char *text, size_t len);

#endif

/* sanitize: makes untrusted text safe for a terminal and for one line of a log. */
#ifndef SANITIZE_H
#define SANITIZE_H

#include "lib/util.h"

/* The length in bytes of the UTF-8 character at `at` (RFC 3629: shortest form, no surrogates, up to U+10FFFF); 0 if it is
 * invalid. */
int utf8_len(const char *at, const char *end);

/* Copies as much of `text` as fits into `size`, with a NUL. Escapes control characters, characters that change the writing
 * direction, and invalid UTF-8: "\n", "\x1b". Returns the length. */
size_t sanitize_copy(char *out, size_t size, const char *text, size_t len);

#endif

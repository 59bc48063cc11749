/* headers: the header lines of a query, from the templates of a provider file and the key.
 *
 *     {key}   the key                {uuid}  a fresh UUID
 *     {jwt}   a JSON web token (HS256) that a key of the form ACCESS:SECRET has signed
 *     {key-or-jwt}  the latter if the key has that form, and otherwise the key */
#ifndef HEADERS_H
#define HEADERS_H

#include "config/provider.h"

/* The credentials sent to the upstream, in all their forms. */
struct secrets {
    const char *items[3 * POOL_KEYS_MAX + 1]; /* (ref) NULL: no more */
};

/* The token of one key, kept until shortly before it expires. */
struct jwt {
    char *text;
    int64_t renew_at; /* seconds since 1970 */
};

enum { HEADERS_MAX = 16384 }; /* bytes of all lines of a query */

/* Add a line, "Name: value" and a NUL, as given, or with its templates filled in ({jwt} and {key-or-jwt} only if `jwt`
 * is not NULL). A line that does not fit is omitted. The lines contain the key, so they are in a buffer of
 * buf_init_secret(); an empty line follows the last one, also before the first is added. */
void headers_add(struct buf *lines, const char *name, const char *value);
void headers_add_template(struct buf *lines, const char *name, const char *value, const char *key,
                          struct jwt *jwt, int64_t now_s);

/* Makes a new token if the current one is about to expire, or is not valid yet because the clock was set back. */
void jwt_renew(struct jwt *jwt, const char *key, int64_t now_s);
void jwt_done(struct jwt *jwt);

/* Adds the strings that must never come back from the upstream: the key, its secret half, the token. */
void headers_add_secrets(const char *key, const struct jwt *jwt, struct secrets *secrets);

#endif

/* headers: the header lines of a query, from the templates of a provider file and the key.
 *
 *     {key}   the key                {uuid}  a fresh UUID
 *     {jwt}   a JSON web token (HS256) that a key of the form ACCESS:SECRET has signed */
#ifndef HEADERS_H
#define HEADERS_H

#include "config/provider.h"
#include "task/redact.h"

/* The token of one key, kept until shortly before it ends. */
struct jwt {
    char *text;
    int64_t renew_at; /* seconds since 1970 */
};

/* "Name: value" with the templates filled in. The line may hold the key: wipe it. */
void headers_add(const char *name, const char *value, const char *key, struct jwt *jwt, int64_t now_s,
                 struct buf *out);

/* Makes the token anew when it is time. */
void jwt_renew(struct jwt *jwt, const char *key, int64_t now_s);
void jwt_done(struct jwt *jwt);

/* Adds what must never come back from the upstream: the key, its secret half, the token. */
void headers_add_secrets(const char *key, const struct jwt *jwt, struct secrets *secrets);

#endif

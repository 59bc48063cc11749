/* expiry: reads from a signed URL when it expires. */
#ifndef EXPIRY_H
#define EXPIRY_H

#include "lib/util.h"

/* The earliest expiry in the URL's query, in seconds since 1970, or 0. Implausible values (before 2001, after 2100, not a
 * number) are ignored. */
int64_t url_expiry(const char *url);

/* Seconds since 1970 of "2025-01-14T15:15:46.72Z" or "...+08:00", UTC without a zone, or of "20250114T151546Z"; 0 if
 * the text is not such a date. */
int64_t iso8601_seconds(const char *text);

#endif

/* expiry: until when a signed URL works, read from the URL itself. */
#ifndef EXPIRY_H
#define EXPIRY_H

#include "lib/util.h"

/* Seconds since 1970 of the earliest expiry that the URL's query names, or 0 when it names none. What makes
 * no sense (before 2001, after 2100, not a number) is not believed. */
int64_t url_expiry(const char *url);

/* Seconds since 1970 of "2025-01-14T15:15:46.72Z" or "...+08:00", a date without a zone taken as UTC, or of
 * "20250114T151546Z"; 0 when it is no such date. */
int64_t iso8601_seconds(const char *text);

#endif

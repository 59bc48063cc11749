/* fcgi_parse: checks whether the data in a socket is one complete, well-formed FastCGI request.
 *
 * libfcgi blocks on an incomplete request and mishandles management records, so it only gets requests that
 * pass this check: BEGIN_REQUEST for a responder, the whole PARAMS stream and the whole STDIN stream, all
 * with one request id, and nothing after them. */
#ifndef FCGI_PARSE_H
#define FCGI_PARSE_H

#include "lib/util.h"

enum { FCGI_PARSE_MAX = 64 * 1024 };

enum fcgi_parse_verdict {
    FCGI_PARSE_WHOLE,
    FCGI_PARSE_PARTIAL, /* valid so far, but incomplete */
    FCGI_PARSE_BAD      /* malformed, or larger than FCGI_PARSE_MAX */
};

enum fcgi_parse_verdict fcgi_parse_check(const unsigned char *data, size_t len);

#endif

/* fcgi_parse: is what lies in a socket one whole, well-formed FastCGI request?
 *
 * libfcgi blocks where a request is not whole, and mishandles management records, so it is given nothing that
 * this file has not passed: BEGIN_REQUEST for a responder, PARAMS up to its end, STDIN up to its end, of one
 * request id, and nothing behind them. */
#ifndef FCGI_PARSE_H
#define FCGI_PARSE_H

#include "lib/util.h"

enum { FCGI_PARSE_MAX = 64 * 1024 };

enum fcgi_parse_verdict {
    FCGI_PARSE_WHOLE,
    FCGI_PARSE_PARTIAL, /* a good beginning */
    FCGI_PARSE_BAD      /* malformed, or larger than FCGI_PARSE_MAX */
};

enum fcgi_parse_verdict fcgi_parse_check(const unsigned char *data, size_t len);

#endif

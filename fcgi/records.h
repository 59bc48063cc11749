/* records: is what lies in a socket one whole, well-formed FastCGI request?
 *
 * libfcgi blocks where a request is not whole, and mishandles management records, so it is given nothing that
 * this file has not passed: BEGIN_REQUEST for a responder, PARAMS up to its end, STDIN up to its end, of one
 * request id, and nothing behind them. */
#ifndef RECORDS_H
#define RECORDS_H

#include "util.h"

enum { RECORDS_MAX = 64 * 1024 };

enum records_verdict {
    RECORDS_WHOLE,
    RECORDS_PARTIAL, /* a good beginning */
    RECORDS_BAD      /* malformed, or larger than RECORDS_MAX */
};

enum records_verdict records_check(const unsigned char *data, size_t len);

#endif

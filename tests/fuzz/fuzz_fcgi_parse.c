/* Bytes from a socket. Every prefix of a complete request is partial. */
#include "fuzz.h"

#include "net/fcgi_parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (fcgi_parse_check(data, size) != FCGI_PARSE_WHOLE)
        return 0;
    for (size_t len = 0; len < size; len += 1 + size / 64)
        PROMISE(fcgi_parse_check(data, len) == FCGI_PARSE_PARTIAL);
    return 0;
}

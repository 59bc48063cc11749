/* What lies in a socket. A request that is whole was partial at every moment before. */
#include "fuzz.h"

#include "../../fcgi/records.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (records_check(data, size) != RECORDS_WHOLE)
        return 0;
    for (size_t len = 0; len < size; len += 1 + size / 64)
        PROMISE(records_check(data, len) == RECORDS_PARTIAL);
    return 0;
}

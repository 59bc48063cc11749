/* A URL: it has no expiry, or one between 2001 and 2100. */
#include "fuzz.h"

#include "upstream/view.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = xstrndup((const char *)data, size);
    int64_t at = url_expiry(text);
    PROMISE(at == 0 || (at >= 1000000000 && at <= 4102444800));
    iso8601_seconds(text);
    free(text);
    return 0;
}

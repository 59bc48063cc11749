/* trace: see trace.h. */
#include "lib/trace.h"

#include <string.h>

static const struct trace *now;

static bool is_hex(const char *text, size_t len)
{
    return strspn(text, "0123456789abcdef") >= len;
}

static bool is_zero(const char *text, size_t len)
{
    return strspn(text, "0") >= len;
}

/* VERSION-TRACE-PARENT-FLAGS, 2, 32, 16 and 2 digits; later versions may append fields after another '-'. */
struct trace trace_read(const char *given)
{
    struct trace trace = {""};
    size_t len = given ? strlen(given) : 0;
    if (len < 55 || (len > 55 && (given[55] != '-' || is_zero(given, 2))))
        return trace;
    if (given[2] != '-' || given[35] != '-' || given[52] != '-' || !is_hex(given, 2) ||
        !is_hex(given + 3, 32) || !is_hex(given + 36, 16) || !is_hex(given + 53, 2))
        return trace;
    if (memcmp(given, "ff", 2) == 0 || is_zero(given + 3, 32) || is_zero(given + 36, 16))
        return trace;
    memcpy(trace.parent, given, 55);
    memcpy(trace.parent, "00", 2);
    return trace;
}

const struct trace *trace_enter(const struct trace *trace)
{
    const struct trace *outer = now;
    now = trace;
    return outer;
}

struct trace trace_now(void)
{
    return now != NULL ? *now : (struct trace){""};
}

/* trace: see trace.h. */
#include "lib/trace.h"

#include <stdio.h>
#include <string.h>

static const struct trace *now;

static bool is_zero(const char *digits)
{
    return digits[strspn(digits, "0")] == '\0';
}

/* VERSION-TRACE-PARENT-FLAGS, 2, 32, 16 and 2 digits; later versions may append fields after another '-'. */
struct trace trace_read(const char *given)
{
    struct trace trace = {""};
    char version[3], id[33], parent[17], flags[3];
    int len = 0;
    if (given == NULL || sscanf(given, "%2[0-9a-f]-%32[0-9a-f]-%16[0-9a-f]-%2[0-9a-f]%n", version, id, parent,
                                flags, &len) != 4)
        return trace;
    bool is_longer = given[len] == '-' && !is_zero(version);
    if (len != 55 || (given[len] != '\0' && !is_longer) || strcmp(version, "ff") == 0 || is_zero(id) ||
        is_zero(parent))
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

/* follow: taskproxy --watch, which shows in a terminal how a task of a running taskproxy gets on, to its end. */
#ifndef FOLLOW_H
#define FOLLOW_H

/* What the process ends with. */
enum follow_end {
    FOLLOW_SUCCEEDED = 0,
    FOLLOW_FAILED = 1, /* or cancelled */
    FOLLOW_USAGE = 2,
    FOLLOW_UNKNOWN = 3,       /* there is no such task */
    FOLLOW_UNREACHED = 4,     /* or refused, or lost for too long */
    FOLLOW_INTERRUPTED = 130, /* as shells have it */
};

/* As given on the command line; each but the target may be NULL. */
struct follow_order {
    const char *target; /* a URL, or PROVIDER/ID */
    const char *base;   /* beneath which the latter is; NULL: $TASKPROXY_URL, or this host */
    const char *token_file;
};

enum follow_end follow_task(const struct follow_order *order);

#endif

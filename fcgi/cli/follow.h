/* follow: taskproxy --watch, which shows the progress of a task of a running taskproxy until the task ends. */
#ifndef FOLLOW_H
#define FOLLOW_H

/* The exit status of the process. */
enum follow_end {
    FOLLOW_SUCCEEDED = 0,
    FOLLOW_FAILED = 1, /* or cancelled */
    FOLLOW_USAGE = 2,
    FOLLOW_UNKNOWN = 3,       /* the task does not exist */
    FOLLOW_UNREACHED = 4,     /* the server cannot be reached, refuses, or has been failing for too long */
    FOLLOW_INTERRUPTED = 130, /* as in shells */
};

/* As given on the command line; each but the target may be NULL. */
struct follow_order {
    const char *target; /* a URL, or PROVIDER/ID */
    const char *base;   /* base URL for PROVIDER/ID; NULL: $TASKPROXY_URL, or this host */
    const char *token_file;
};

enum follow_end follow_task(const struct follow_order *order);

#endif

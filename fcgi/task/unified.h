/* unified: the view that has the same form for every provider. */
#ifndef UNIFIED_H
#define UNIFIED_H

#include "config/provider.h"
#include "task/redact.h"

/* What is known of the task; all (ref). */
struct unified_task {
    const struct provider *provider;
    const char *id;
    const struct secrets *secrets; /* may be NULL */
    enum state state;
    struct json_object *doc; /* the upstream's answer */
    int64_t urls_expire_at;  /* seconds since 1970, what the URLs say; 0: nothing. May become earlier by the
                                document */
    int64_t created_at;      /* set: seconds since 1970; 0: unknown */
};

/* Writes the view, a JSON object. */
void unified_write(struct unified_task *task, struct buf *out);

#endif

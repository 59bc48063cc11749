/* unified: the view that has the same form for every provider. */
#ifndef UNIFIED_H
#define UNIFIED_H

#include "config/provider.h"
#include "task/redact.h"

/* The facts about the task; all (ref). */
struct unified_task {
    const struct provider *provider;
    const char *id;
    const struct secrets *secrets; /* may be NULL */
    enum state state;
    struct json_object *doc; /* the upstream's answer */
    int64_t urls_expire_at;  /* by the URLs, seconds since 1970; 0: never. The document may lower it */
    int64_t created_at;      /* set: seconds since 1970; 0: unknown */
};

/* Writes the view, a JSON object. */
void unified_write(struct unified_task *task, struct buf *out);

#endif

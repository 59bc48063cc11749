/* hook: an upstream's webhook, POST /v1/hooks/PROVIDER/SECRET.
 *
 * It is a hint that a task may have changed, and nothing else: the body names the task and is forgotten. */
#ifndef HOOK_H
#define HOOK_H

#include "task/route.h"

enum { HOOK_BODY_MAX = 32 * 1024 };

/* The route whose webhook that is; NULL when there is none, or the secret is another one, which takes the
 * same time. */
const struct conf_route *hook_route(const struct conf *conf, const char *uri);

/* The task that the body names; otherwise why it is refused. */
enum problem hook_read(const struct conf_route *route, const char *body, size_t len, struct task *ret_task);

#endif

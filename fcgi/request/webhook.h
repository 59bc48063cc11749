/* webhook: POST /v1/hooks/PROVIDER/SECRET, sent by an upstream when a task changes.
 *
 * A webhook is only a hint: the body names the task to poll, and nothing else in it is used. */
#ifndef WEBHOOK_H
#define WEBHOOK_H

#include "task/route.h"

enum { WEBHOOK_BODY_MAX = 32 * 1024 };

/* The route whose webhook address this is. NULL if no route has it: an unknown provider and a wrong secret
 * look the same and take the same time. */
const struct conf_route *webhook_route(const struct conf *conf, const char *uri);

/* Finds the task that the body names; otherwise returns why the webhook is refused. */
enum problem webhook_read(const struct conf_route *route, const char *body, size_t len,
                          struct task *ret_task);

#endif

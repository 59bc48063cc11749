/* content: the answer to a request for a result itself, /v1/tasks/PROVIDER/ID/content/N.
 *
 * It is made from the same snapshot as the views. A result that needs no key is a redirect to its current URL. For one that
 * does, nginx gets the key in headers that it does not pass on, and streams the result (@taskproxy_content). Clients need no
 * credentials of the upstream, and can keep the reference longer than the URL. */
#ifndef CONTENT_H
#define CONTENT_H

#include "request/answer.h"
#include "task/route.h"

/* The snapshot must outlive the answer. For an old snapshot, facts->problem is why it is old. */
void content_answer(struct answer *answer, const struct answer_facts *facts, const struct snapshot *snapshot,
                    const struct conf_route *route);

#endif

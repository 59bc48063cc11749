/* content: the answer to a request for a result itself, /v1/tasks/PROVIDER/ID/content/N.
 *
 * It is made from the same snapshot as the views: a redirect to the current URL of the result, or a problem that says why
 * there is none. Clients need no credentials of the upstream, and can keep the reference longer than the URL. */
#ifndef CONTENT_H
#define CONTENT_H

#include "request/answer.h"

/* The snapshot must outlive the answer. For an old snapshot, facts->problem is why it is old. */
void content_answer(struct answer *answer, const struct answer_facts *facts, const struct snapshot *snapshot);

#endif

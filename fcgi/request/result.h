/* result: the answer to a request for the path of a provider's second query.
 *
 * The result alone is the part of the native view that the second answer has become, so both paths are answered from one
 * snapshot. Before the task has succeeded, clients get the provider's own error for an unfinished task. */
#ifndef RESULT_H
#define RESULT_H

#include "request/answer.h"

/* The snapshot must outlive the answer. */
void result_answer(struct answer *answer, const struct answer_facts *facts, const struct snapshot *snapshot,
                   const struct result_query *query);

#endif

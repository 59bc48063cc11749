/* reply: see reply.h. */
#include "request/reply.h"

void reply_make(const struct client_request *asked, const struct answer_facts *facts,
                const struct lookup *lookups, size_t n, const struct fcgi_request *client,
                struct answer *ret_answer)
{
    bool many = asked->kind == ROUTE_MANY;
    if (asked->preflight && facts->problem == PROBLEM_NONE)
        answer_preflight(ret_answer, facts, fcgi_param(client, "HTTP_ACCESS_CONTROL_REQUEST_HEADERS"));
    else if (facts->problem != PROBLEM_NONE && (many || lookups->snapshot == NULL))
        answer_problem(ret_answer, facts);
    else if (asked->kind == ROUTE_HOOK)
        answer_nothing(ret_answer, facts);
    else if (many)
        lookups_answer(lookups, n, facts, ret_answer);
    else
        lookup_answer(lookups, asked->view, facts, ret_answer);
}

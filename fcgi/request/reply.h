/* reply: which of the forms of answer.h a request gets. */
#ifndef REPLY_H
#define REPLY_H

#include "request/lookup.h"
#include "request/client_request.h"

/* `lookups` are those of the request; of one about a task there is one. They must outlive the answer. */
void reply_make(const struct client_request *asked, const struct answer_facts *facts,
                const struct lookup *lookups, size_t n, const struct fcgi_request *client,
                struct answer *ret_answer);

#endif

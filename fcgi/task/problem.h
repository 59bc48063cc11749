/* problem: the ways in which an answer can fail, each with its code, status and words (RFC 9457).
 *
 * The words are our own: nothing of the upstream's stands in a problem. */
#ifndef PROBLEM_H
#define PROBLEM_H

#include "lib/buf.h"

/* X(identifier, code, status, title, detail) */
#define PROBLEMS(X)                                                                                          \
    X(BAD_REQUEST, "bad_request", 400, "Bad request", "The request is malformed.")                           \
    X(BAD_ID, "bad_request", 400, "Bad request", "This is no task id of this provider.")                     \
    X(BAD_WAIT, "bad_request", 400, "Bad request",                                                           \
      "wait must be given once, as a whole number of seconds: 0 does not wait, more than 60 is cut to 60.")  \
    X(BAD_IDS, "bad_request", 400, "Bad request",                                                            \
      "ids must be 1 to 100 names of the form PROVIDER/ID, separated by commas.")                            \
    X(BAD_HOOK, "bad_request", 400, "Bad request",                                                           \
      "The body is no JSON, or names no task where this provider's webhooks do.")                            \
    X(TOO_LARGE, "bad_request", 413, "Content too large", "The request body is too large.")                  \
    X(NO_CREDENTIAL, "unauthorized", 401, "Unauthorized", "A team's token or a signed link is needed.")      \
    X(WRONG_TOKEN, "unauthorized", 401, "Unauthorized", "This is no team's token.")                          \
    X(BAD_LINK, "unauthorized", 401, "Unauthorized", "A signed link has team, exp and sig, each once.")      \
    X(NO_TEAM, "forbidden", 403, "Forbidden", "The web server names no team that is known.")                 \
    X(FORBIDDEN, "forbidden", 403, "Forbidden", "The team may not ask about this provider.")                 \
    X(WRONG_LINK, "forbidden", 403, "Forbidden",                                                             \
      "The link is not for this task, or not signed by its team.")                                           \
    X(LINK_EXPIRED, "forbidden", 403, "Forbidden", "The link has expired.")                                  \
    X(ORIGIN, "forbidden", 403, "Forbidden", "No team lists this origin.")                                   \
    X(NOT_FOUND, "not_found", 404, "Not found", "There is nothing at this path.")                            \
    X(TASK_NOT_FOUND, "task_not_found", 404, "Task not found", "The upstream knows no such task.")           \
    X(METHOD, "method_not_allowed", 405, "Method not allowed", "This resource can only be read.")            \
    X(RATE_LIMITED, "rate_limited", 429, "Too many requests",                                                \
      "The team has caused as many queries to the upstream as it may in a minute.")                          \
    X(TOO_MANY_WATCHERS, "rate_limited", 429, "Too many requests",                                           \
      "The team has as many requests waiting as it may.")                                                    \
    X(UPSTREAM_ERROR, "upstream_error", 502, "Upstream error", "The upstream answered with an error.")       \
    X(UNREACHABLE, "upstream_error", 502, "Upstream unreachable", "The upstream could not be reached.")      \
    X(UPSTREAM_INVALID, "upstream_invalid", 502, "Invalid upstream answer",                                  \
      "The upstream's answer could not be used.")                                                            \
    X(UPSTREAM_AUTH, "upstream_auth", 502, "Upstream refused the key",                                       \
      "The upstream refused the proxy's own credentials. The operator has to act.")                          \
    X(OVERLOADED, "overloaded", 503, "Overloaded", "The proxy has reached one of its limits.")               \
    X(UNAVAILABLE, "upstream_unavailable", 503, "Upstream unavailable",                                      \
      "The upstream takes no queries at the moment.")                                                        \
    X(UPSTREAM_TIMEOUT, "upstream_timeout", 504, "Upstream timeout", "The upstream did not answer in time.")

#define PROBLEM_ID(id, code, status, title, detail) PROBLEM_##id,
enum problem { PROBLEM_NONE, PROBLEMS(PROBLEM_ID) PROBLEM_COUNT };

int problem_status(enum problem problem);
const char *problem_code(enum problem problem);

/* Failures in which an old snapshot is better than none: not where the upstream has said something of the
 * task, or of our right to it. */
bool problem_is_excusable(enum problem problem);

/* The whole document, with the members that official SDKs read their message from. */
void problem_body(enum problem problem, const char *request_id, struct buf *out);

#endif

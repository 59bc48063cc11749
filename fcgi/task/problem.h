/* problem: the errors that clients get, each with its code, status and texts (RFC 9457).
 *
 * The texts are fixed: a problem never contains anything from the upstream. */
#ifndef PROBLEM_H
#define PROBLEM_H

#include "lib/buf.h"

/* X(identifier, code, status, title, detail) */
#define PROBLEMS(X)                                                                                          \
    X(BAD_REQUEST, "bad_request", 400, "Bad request", "The request is malformed.")                           \
    X(BAD_ID, "bad_request", 400, "Bad request", "The task id is not valid for this provider.")              \
    X(BAD_WAIT, "bad_request", 400, "Bad request",                                                           \
      "wait must be given once, as a whole number of seconds; 0 does not wait, values above 60 count as "    \
      "60.")                                                                                                 \
    X(BAD_IDS, "bad_request", 400, "Bad request",                                                            \
      "ids must be 1 to 100 items of the form PROVIDER/ID, separated by commas.")                            \
    X(BAD_HOOK, "bad_request", 400, "Bad request",                                                           \
      "The body is not JSON, or does not name a task where this provider's webhooks do; or the URL has an "  \
      "invalid variable.")                                                                                   \
    X(NOT_READY, "content_not_ready", 409, "Content not ready", "The task has not ended yet.")               \
    X(CONTENT_EXPIRED, "content_expired", 410, "Content expired", "The result has expired at the upstream.") \
    X(TOO_LARGE, "bad_request", 413, "Content too large", "The request body is too large.")                  \
    X(NO_CREDENTIAL, "unauthorized", 401, "Unauthorized", "A team token or a signed link is required.")      \
    X(WRONG_TOKEN, "unauthorized", 401, "Unauthorized", "Unknown token.")                                    \
    X(BAD_LINK, "unauthorized", 401, "Unauthorized",                                                         \
      "A signed link must have team, exp, sig and optionally kid and tasks, each once. tasks must be 1 to "  \
      "100 names in ascending order, separated by commas.")                                                  \
    X(NO_TEAM, "forbidden", 403, "Forbidden", "The web server did not name a known team.")                   \
    X(FORBIDDEN, "forbidden", 403, "Forbidden", "The team may not use this provider.")                       \
    X(WRONG_LINK, "forbidden", 403, "Forbidden",                                                             \
      "The link is for another task, or its signature is invalid.")                                          \
    X(LINK_EXPIRED, "forbidden", 403, "Forbidden", "The link has expired.")                                  \
    X(LINK_TOO_LONG, "forbidden", 403, "Forbidden", "The link expires too far in the future.")               \
    X(ORIGIN, "forbidden", 403, "Forbidden", "No team lists this origin.")                                   \
    X(NOT_FOUND, "not_found", 404, "Not found", "Nothing exists at this path.")                              \
    X(TASK_NOT_FOUND, "task_not_found", 404, "Task not found", "The task does not exist at the upstream.")   \
    X(NO_RESULT, "content_not_found", 404, "Content not found", "The task has no result with this number.")  \
    X(NO_RESULTS, "content_not_found", 404, "Content not found",                                             \
      "The task has failed or was cancelled, so it has no results.")                                         \
    X(NO_TARGET, "not_found", 404, "Not found", "The target URL is not that of a task's status or result.")  \
    X(METHOD, "method_not_allowed", 405, "Method not allowed", "This resource is read-only.")                \
    X(SUBMIT, "method_not_allowed", 405, "Method not allowed",                                               \
      "This proxy only answers queries for tasks. Submit and cancel them with the provider's API key.")      \
    X(RATE_LIMITED, "rate_limited", 429, "Too many requests",                                                \
      "The team has used up its upstream queries for this minute.")                                          \
    X(TOO_MANY_WATCHERS, "rate_limited", 429, "Too many requests",                                           \
      "The team has reached its limit of waiting requests.")                                                 \
    X(THROTTLED, "rate_limited", 429, "Too many requests",                                                   \
      "Too many invalid credentials from this address.")                                                     \
    X(NOT_OFFLOADED, "content_not_offloaded", 501, "Content not offloaded",                                  \
      "This result needs the upstream's key, which only nginx can send, with the shipped configuration.")    \
    X(UPSTREAM_ERROR, "upstream_error", 502, "Upstream error", "The upstream answered with an error.")       \
    X(UNREACHABLE, "upstream_error", 502, "Upstream unreachable", "The upstream could not be reached.")      \
    X(UPSTREAM_INVALID, "upstream_invalid", 502, "Invalid upstream answer",                                  \
      "The upstream's answer could not be used.")                                                            \
    X(UPSTREAM_AUTH, "upstream_auth", 502, "Upstream refused the key",                                       \
      "The upstream refused the proxy's credentials. The operator must act.")                                \
    X(OVERLOADED, "overloaded", 503, "Overloaded", "The proxy has reached one of its limits.")               \
    X(UNAVAILABLE, "upstream_unavailable", 503, "Upstream unavailable",                                      \
      "The upstream does not accept queries at the moment.")                                                 \
    X(UPSTREAM_TIMEOUT, "upstream_timeout", 504, "Upstream timeout", "The upstream did not answer in time.")

#define PROBLEM_ID(id, code, status, title, detail) PROBLEM_##id,
enum problem { PROBLEM_NONE, PROBLEMS(PROBLEM_ID) PROBLEM_COUNT };

int problem_status(enum problem problem);
const char *problem_code(enum problem problem);

/* Whether an old snapshot may be served in place of the problem. False if the problem concerns the task
 * itself, the client's access to it, or our API key. */
bool problem_is_excusable(enum problem problem);

/* Whether the request may succeed later without a change by the client: the answers 429, 502, 503 and 504, except
 * that of an address which keeps sending invalid credentials. */
bool problem_may_pass(enum problem problem);

/* Writes the members of the document, without the closing brace. */
void problem_members(enum problem problem, const char *request_id, struct buf *out);

/* Writes the document, including the members in which official SDKs look for the message. */
void problem_body(enum problem problem, const char *request_id, struct buf *out);

#endif

/* client_request: parses one client's request from the request line, the query and the headers. */
#ifndef CLIENT_REQUEST_H
#define CLIENT_REQUEST_H

#include "access/access.h"
#include "lib/trace.h"
#include "net/fcgi.h"
#include "request/answer.h"

enum { CLIENT_REQUEST_WAIT_MAX = 60 }; /* seconds */

struct client_request {
    bool preflight; /* the method is OPTIONS: a browser's CORS preflight */
    enum view_kind view;
    const struct conf_route
        *hook;   /* (ref) ROUTE_HOOK, POST /v1/hooks/PROVIDER/SECRET[/VARIABLE...]: the provider's route */
    int wait_s;  /* how long the client wants to wait for a change; 0: not at all */
    bool stream; /* the client wants server-sent events */
    const char *uri;           /* (ref) all texts: until the request is answered; each may be NULL */
    const char *last_event_id; /* (ref) */
    bool foreign;              /* the requesting page has an origin that no team lists */
    struct trace trace;
    struct credentials given; /* (ref) empty in the access mode "open" */
};

/* Reads a request. PROBLEM_NONE, or why it is refused; then *ret_asked has what could be read. Sets those facts of the
 * answer that follow from the request; the others, and those that do not apply to it, stay as they are. *ret_task is the
 * task, if the request is about one. */
enum problem client_request_read(const struct conf *conf, const struct fcgi_request *client,
                                 struct client_request *ret_asked, struct answer_facts *facts,
                                 struct task *ret_task);

/* Whether the URI is that of a webhook, with the right secret or not. */
bool client_request_is_hook(const char *uri);

/* Reads the body of a webhook, which is only a hint: it names the task to poll, and nothing else in it is used. The
 * variables of the task other than its id are in the URL. Returns why the webhook is refused, if it is. */
enum problem client_request_hint(const struct client_request *asked, const char *body, size_t len,
                                 struct task *ret_task);

/* The seconds of "wait=" in a query, or else in a Prefer header (RFC 7240); both may be NULL. 0: do not wait.
 * Values over CLIENT_REQUEST_WAIT_MAX are cut to it. -1: the value in the query is malformed, or given twice;
 * a malformed preference is ignored, as the RFC demands. */
int client_request_wait(const char *query, const char *prefer);

/* Whether a Prefer header (may be NULL) has "view=unified". */
bool client_request_prefers_unified(const char *prefer);

#endif

/* asked: what one client wants, read from the line and the headers of its request. */
#ifndef CLIENT_REQUEST_H
#define CLIENT_REQUEST_H

#include "access/access.h"
#include "request/answer.h"
#include "net/fcgi.h"
#include "lib/trace.h"

struct client_request {
    bool head_only; /* the method is HEAD */
    bool preflight; /* it is OPTIONS: a browser asks whether it may ask */
    enum route_kind kind;
    enum view_kind view;
    const struct conf_route *hook; /* (ref) ROUTE_HOOK: whose webhook it is */
    int wait_s;                    /* how long it wants to be held; 0: not at all */
    bool stream;                   /* it wants server-sent events */
    const char *uri;               /* (ref) all of these until the request is answered; each may be NULL */
    const char *if_none_match;     /* (ref) */
    const char *last_event_id;     /* (ref) */
    const char *origin;            /* (ref) the web page that asks, if it is one of the teams' */
    bool foreign;                  /* a web page asks that is none of the teams' */
    struct trace trace;            /* that the request belongs to */
    struct credentials given;      /* (ref) unless whoever the web server lets in may ask */
};

/* PROBLEM_NONE, or why the request is refused: then the asked has what could be told. `ret_task` is the task
 * that is asked about, where it is one. */
enum problem client_request_read(const struct conf *conf, const struct fcgi_request *client,
                                 struct client_request *ret_wish, struct task *ret_task);

/* What of the answer is settled by it. */
void client_request_facts(const struct client_request *asked, const struct conf *conf,
                          const struct task *task, struct answer_facts *facts);

#endif

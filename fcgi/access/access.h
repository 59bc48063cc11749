/* access: authenticates a client by its credentials and decides whether it may read a task.
 *
 * A client sends its team's token in the header in which the provider's own clients send their key, so that
 * an official client needs only another base URL and key; or as "Authorization: Bearer TOKEN". A browser
 * sends a signed link (link.h) in the query. If both are present, the token is used. */
#ifndef ACCESS_H
#define ACCESS_H

#include "task/route.h"

enum { ACCESS_PARAM_SIZE = 80 };

/* (ref) As passed by the web server; each may be NULL. */
struct credentials {
    const char *authorization; /* the header Authorization */
    const char *key_header;    /* the header in which the provider's own clients send their key */
    const char *team;          /* TASKPROXY_TEAM, which only the web server can set */
    const char *query;
};

/* The name of the CGI parameter with a header: "HTTP_X_API_KEY" for "x-api-key". */
void access_header_param(const char *header, char out[static ACCESS_PARAM_SIZE]);

struct caller {
    const struct team *team; /* (ref) NULL in the mode "open" */
    char *tasks;             /* those of its link for a list, to free; NULL: it has none */
    int64_t until_ms;        /* since 1970: the expiry of its link; INT64_MAX: it has none */
};

/* Identifies the client and its team, or returns why access is denied. Without a `task`, it refuses links for one task; the
 * caller then calls access_authorize for each task. */
enum problem access_authenticate(const struct conf *conf, const struct credentials *given,
                                 const struct task *task, int64_t now_s, struct caller *ret_caller);

/* Whether the team may read the task, by a link for `tasks` if that is not NULL. A team that is NULL, in the mode "open", may
 * read every task. */
enum problem access_authorize(const struct team *team, const char *tasks, const struct task *task);

/* Whether a page of that origin (may be NULL) may read the answer: one of the team's origins or, if the team is
 * unknown, of any team. Then the answer is a problem, which says nothing about tasks. */
bool access_is_origin(const struct conf *conf, const struct team *team, const char *origin);

#endif

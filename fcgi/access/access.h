/* access: who asks, and whether he may - decided from what the client has presented.
 *
 * A team's token comes where the provider's own clients put their key, so that an official client needs only
 * another base URL and another key; or as "Authorization: Bearer TOKEN". A browser has a signed link (link.h)
 * in the query. A token goes before a link. */
#ifndef ACCESS_H
#define ACCESS_H

#include "task/route.h"

enum { ACCESS_PARAM_SIZE = 80 };

/* As the web server passed it; each may be NULL, and is only borrowed. */
struct credentials {
    const char *authorization; /* the header Authorization */
    const char *key_header;    /* the header in which the provider's own clients put their key */
    const char *team;          /* TASKPROXY_TEAM, which nothing but the web server can set */
    const char *query;
};

/* The parameter that has the key_header: "HTTP_X_API_KEY". */
void access_key_param(const struct provider *provider, char out[static ACCESS_PARAM_SIZE]);

/* Who asks, in *ret_team (NULL in the mode "open": nobody in particular), or why he may not. `task` is what
 * is asked about; with NULL only the team is told, no link will do, and access_may decides on each task. */
enum problem access_who(const struct conf *conf, const struct credentials *given, const struct task *task,
                        int64_t now_s, const struct team **ret_team);

/* Whether the team (NULL: anyone) may ask about the task. */
enum problem access_may(const struct team *team, const struct task *task);

/* Whether a page of that origin (may be NULL) may read the answer about a task: that of the team, or, while
 * it is not known who asks, that of any team which may ask. `task` may be NULL, too. */
bool access_is_origin(const struct conf *conf, const struct team *team, const struct task *task,
                      const char *origin);

#endif

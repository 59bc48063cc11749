/* wish: see wish.h. */
#include "wish.h"

#include <string.h>

#include "hook.h"
#include "prefer.h"

static bool is_method(const char *method, const char *name)
{
    return method != NULL && strcmp(method, name) == 0;
}

/* How long, and in which form, the client wants to be told. */
static enum problem read_preferences(const struct fcgi_request *client, struct wish *wish)
{
    const char *query = strchr(wish->uri, '?');
    int wait_s = prefer_wait(query ? query + 1 : NULL, fcgi_param(client, "HTTP_PREFER"));
    if (wait_s < 0)
        return PROBLEM_BAD_WAIT;
    wish->wait_s = wait_s;
    wish->stream = prefer_event_stream(fcgi_param(client, "HTTP_ACCEPT")) && fcgi_can_stream(client) &&
                   wish->kind != ROUTE_MANY && !wish->head_only;
    return PROBLEM_NONE;
}

static void read_credentials(const struct fcgi_request *client, const struct task *task, struct wish *wish)
{
    const char *query = wish->uri ? strchr(wish->uri, '?') : NULL;
    char param[ACCESS_PARAM_SIZE];
    wish->given = (struct credentials){.authorization = fcgi_param(client, "HTTP_AUTHORIZATION"),
                                       .team = fcgi_param(client, "TASKPROXY_TEAM"),
                                       .query = query ? query + 1 : NULL};
    if (task == NULL)
        return;
    access_key_param(task->route->provider, param);
    wish->given.key_header = fcgi_param(client, param);
}

/* Who asks, by whatever means; nobody wants to know that in the open. */
static void read_asker(const struct conf *conf, const struct fcgi_request *client, const struct task *task,
                       struct wish *wish)
{
    const char *origin = fcgi_param(client, "HTTP_ORIGIN");
    if (conf->access.mode == ACCESS_OPEN)
        return;
    wish->preflight = is_method(fcgi_param(client, "REQUEST_METHOD"), "OPTIONS");
    if (access_is_origin(conf, NULL, task, origin))
        wish->origin = origin;
    wish->foreign = origin != NULL && wish->origin == NULL;
    read_credentials(client, task, wish);
}

enum problem wish_read(const struct conf *conf, const struct fcgi_request *client, struct wish *wish,
                       struct task *ret_task)
{
    const char *method = fcgi_param(client, "REQUEST_METHOD");
    *wish = (struct wish){.head_only = is_method(method, "HEAD"),
                          .trace = trace_read(fcgi_param(client, "HTTP_TRACEPARENT")),
                          .uri = fcgi_param(client, "REQUEST_URI"),
                          .if_none_match = fcgi_param(client, "HTTP_IF_NONE_MATCH"),
                          .last_event_id = fcgi_param(client, "HTTP_LAST_EVENT_ID")};
    enum problem problem = PROBLEM_BAD_REQUEST;
    if (wish->uri != NULL)
        wish->kind = route_find(conf, wish->uri, ret_task, &problem);
    if (problem == PROBLEM_NOT_FOUND && (wish->hook = hook_route(conf, wish->uri)) != NULL) {
        wish->kind = ROUTE_HOOK;
        return is_method(method, "POST") ? PROBLEM_NONE : PROBLEM_METHOD;
    }
    bool unified = wish->kind != ROUTE_NATIVE || prefer_unified(fcgi_param(client, "HTTP_PREFER"));
    wish->view = unified ? VIEW_UNIFIED : VIEW_NATIVE;
    read_asker(conf, client, ret_task->route ? ret_task : NULL, wish);
    if (problem == PROBLEM_NOT_FOUND)
        return problem;
    if (!wish->head_only && !wish->preflight && !is_method(method, "GET"))
        return PROBLEM_METHOD;
    return problem == PROBLEM_NONE ? read_preferences(client, wish) : problem;
}

void wish_facts(const struct wish *wish, const struct conf *conf, const struct task *task,
                struct answer_facts *facts)
{
    facts->if_none_match = wish->if_none_match;
    facts->head_only = wish->head_only;
    facts->allow = wish->kind == ROUTE_HOOK ? "POST" : NULL;
    facts->origin = wish->origin;
    facts->by_origin = conf->access.mode != ACCESS_OPEN;
    facts->key_header = task->route ? task->route->provider->auth.header : NULL;
}

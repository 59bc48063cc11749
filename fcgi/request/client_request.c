/* asked: see client_request.h. */
#include "request/client_request.h"

#include <string.h>

#include "request/hook.h"
#include "request/prefer.h"

static bool is_method(const char *method, const char *name)
{
    return method != NULL && strcmp(method, name) == 0;
}

/* How long, and in which form, the client wants to be told. */
static enum problem read_preferences(const struct fcgi_request *client, struct client_request *asked)
{
    const char *query = strchr(asked->uri, '?');
    int wait_s = prefer_wait(query ? query + 1 : NULL, fcgi_param(client, "HTTP_PREFER"));
    if (wait_s < 0)
        return PROBLEM_BAD_WAIT;
    asked->wait_s = wait_s;
    asked->stream = prefer_event_stream(fcgi_param(client, "HTTP_ACCEPT")) && fcgi_can_stream(client) &&
                    asked->kind != ROUTE_MANY && !asked->head_only;
    return PROBLEM_NONE;
}

static void read_credentials(const struct fcgi_request *client, const struct task *task,
                             struct client_request *asked)
{
    const char *query = asked->uri ? strchr(asked->uri, '?') : NULL;
    char param[ACCESS_PARAM_SIZE];
    asked->given = (struct credentials){.authorization = fcgi_param(client, "HTTP_AUTHORIZATION"),
                                        .team = fcgi_param(client, "TASKPROXY_TEAM"),
                                        .query = query ? query + 1 : NULL};
    if (task == NULL)
        return;
    access_key_param(task->route->provider, param);
    asked->given.key_header = fcgi_param(client, param);
}

/* Who asks, by whatever means; nobody wants to know that in the open. */
static void read_asker(const struct conf *conf, const struct fcgi_request *client, const struct task *task,
                       struct client_request *asked)
{
    const char *origin = fcgi_param(client, "HTTP_ORIGIN");
    if (conf->access.mode == ACCESS_OPEN)
        return;
    asked->preflight = is_method(fcgi_param(client, "REQUEST_METHOD"), "OPTIONS");
    if (access_is_origin(conf, NULL, task, origin))
        asked->origin = origin;
    asked->foreign = origin != NULL && asked->origin == NULL;
    read_credentials(client, task, asked);
}

enum problem client_request_read(const struct conf *conf, const struct fcgi_request *client,
                                 struct client_request *asked, struct task *ret_task)
{
    const char *method = fcgi_param(client, "REQUEST_METHOD");
    *asked = (struct client_request){.head_only = is_method(method, "HEAD"),
                                     .trace = trace_read(fcgi_param(client, "HTTP_TRACEPARENT")),
                                     .uri = fcgi_param(client, "REQUEST_URI"),
                                     .if_none_match = fcgi_param(client, "HTTP_IF_NONE_MATCH"),
                                     .last_event_id = fcgi_param(client, "HTTP_LAST_EVENT_ID")};
    enum problem problem = PROBLEM_BAD_REQUEST;
    if (asked->uri != NULL)
        asked->kind = route_find(conf, asked->uri, ret_task, &problem);
    if (problem == PROBLEM_NOT_FOUND && (asked->hook = hook_route(conf, asked->uri)) != NULL) {
        asked->kind = ROUTE_HOOK;
        return is_method(method, "POST") ? PROBLEM_NONE : PROBLEM_METHOD;
    }
    bool unified = asked->kind != ROUTE_NATIVE || prefer_unified(fcgi_param(client, "HTTP_PREFER"));
    asked->view = unified ? VIEW_UNIFIED : VIEW_NATIVE;
    read_asker(conf, client, ret_task->route ? ret_task : NULL, asked);
    if (problem == PROBLEM_NOT_FOUND)
        return problem;
    if (!asked->head_only && !asked->preflight && !is_method(method, "GET"))
        return PROBLEM_METHOD;
    return problem == PROBLEM_NONE ? read_preferences(client, asked) : problem;
}

void client_request_facts(const struct client_request *asked, const struct conf *conf,
                          const struct task *task, struct answer_facts *facts)
{
    facts->if_none_match = asked->if_none_match;
    facts->head_only = asked->head_only;
    facts->allow = asked->kind == ROUTE_HOOK ? "POST" : NULL;
    facts->origin = asked->origin;
    facts->by_origin = conf->access.mode != ACCESS_OPEN;
    facts->key_header = task->route ? task->route->provider->auth.header : NULL;
}

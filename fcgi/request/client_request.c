/* client_request: see client_request.h. */
#include "request/client_request.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <openssl/crypto.h>

#include "config/pattern.h"
#include "lib/json.h"

enum { HOOK_BODY_MAX = 32 * 1024, HOOK_DEPTH_MAX = 32, DIGEST_SIZE = 32 };

/* ---- preferences ---- */

/* Whether a preference has this name and a value. */
static bool is_named(const char *text, const char *name)
{
    size_t len = strlen(name);
    return strncasecmp(text, name, len) == 0 && (text[len] == '=' || text[len] == ' ' || text[len] == '\t');
}

/* A whole number of seconds, cut to the maximum; -1 if the text is not one. */
static int seconds_of(const char *text)
{
    int64_t seconds;
    if (strlen(text) > 18 || parse_int(text, &seconds) < 0)
        return -1;
    return seconds > CLIENT_REQUEST_WAIT_MAX ? CLIENT_REQUEST_WAIT_MAX : (int)seconds;
}

static bool query_has_wait(const char *query)
{
    for (const char *at = query; at != NULL; at = strchr(at, '&')) {
        at += *at == '&';
        if (strncmp(at, "wait", 4) == 0 && strchr("=&", at[4]) != NULL)
            return true;
    }
    return false;
}

/* The length up to the next comma outside quotes. */
static size_t item_len(const char *text)
{
    bool quoted = false;
    size_t len = 0;
    for (; text[len] != '\0' && (quoted || text[len] != ','); len++) {
        if (text[len] == '"')
            quoted = !quoted;
        else if (quoted && text[len] == '\\' && text[len + 1] != '\0')
            len++;
    }
    return len;
}

/* Finds the value of a preference; "" if there is none. Commas separate preferences, semicolons their
 * parameters; the first of several with the same name counts. */
static void find_preference(const char *prefer, const char *name, char *value, size_t size)
{
    const char *at = prefer ? prefer + strspn(prefer, " \t,") : "";
    value[0] = '\0';
    while (*at != '\0' && !is_named(at, name)) {
        at += item_len(at);
        at += strspn(at, " \t,");
    }
    const char *text = memchr(at, '=', item_len(at));
    if (text == NULL)
        return;
    text += 1 + strspn(text + 1, " \t\"");
    size_t len = strcspn(text, " \t\",;");
    if (len < size)
        snprintf(value, size, "%.*s", (int)len, text);
}

static int wait_of_header(const char *prefer)
{
    char value[24];
    find_preference(prefer, "wait", value, sizeof(value));
    int seconds = seconds_of(value);
    return seconds < 0 ? 0 : seconds;
}

bool client_request_prefers_unified(const char *prefer)
{
    char value[24];
    find_preference(prefer, "view", value, sizeof(value));
    return strcasecmp(value, "unified") == 0;
}

int client_request_wait(const char *query, const char *prefer)
{
    char value[64];
    if (!query_has_wait(query))
        return wait_of_header(prefer);
    if (!query_value(query, "wait", value, sizeof(value)))
        return -1;
    return seconds_of(value);
}

/* ---- webhooks ---- */

static const char prefix[] = "/v1/hooks/";

bool client_request_is_hook(const char *uri)
{
    return strncmp(uri, prefix, strlen(prefix)) == 0;
}

/* Compares digests, which have equal lengths, in constant time. */
static bool is_secret(const char *secret, const char *given, size_t given_len)
{
    unsigned char ours[DIGEST_SIZE], theirs[DIGEST_SIZE];
    sha256(secret, strlen(secret), ours);
    sha256(given, given_len, theirs);
    return CRYPTO_memcmp(ours, theirs, DIGEST_SIZE) == 0;
}

/* The variables in the URL of a webhook, "/fal-ai/pika": what follows the secret. */
static const char *hook_variables(const char *uri)
{
    const char *secret = strchr(uri + strlen(prefix), '/');
    return secret == NULL ? "" : secret + 1 + strcspn(secret + 1, "/?#");
}

static size_t count_segments(const char *path)
{
    size_t n = 0;
    for (; *path != '\0' && strchr("?#", *path) == NULL; path++)
        n += *path == '/';
    return n;
}

/* The route whose webhook address this is. NULL if no route has it: an unknown provider and a wrong secret look
 * the same and take the same time. */
static const struct conf_route *find_hook(const struct conf *conf, const char *uri)
{
    const struct conf_route *found = NULL;
    if (!client_request_is_hook(uri))
        return NULL;
    const char *name = uri + strlen(prefix);
    size_t name_len = strcspn(name, "/?#");
    const char *secret = name + name_len + (name[name_len] == '/');
    for (size_t i = 0; i < conf->routes.n; i++) {
        const struct conf_route *route = conf_route(conf, i);
        const char *provider = route->provider->name;
        bool named = strlen(provider) == name_len && memcmp(provider, name, name_len) == 0;
        if (named && route->hook_secret.text != NULL &&
            is_secret(route->hook_secret.text, secret, strcspn(secret, "/?#")) &&
            count_segments(hook_variables(uri)) == route->path.n_variables - 1 && found == NULL)
            found = route;
    }
    return found;
}

/* Finds the first of the provider's pointers that leads to a valid task id, which follows the variables of the URL. */
static bool find_id(const struct conf_route *route, const char *variables, struct json_object *doc,
                    struct task *task)
{
    char path[1 + TASK_ID_MAX];
    int len = (int)strcspn(variables, "?#");
    const struct json_path *pointers = route->provider->hook.items;
    for (size_t i = 0; i < route->provider->hook.n; i++) {
        struct json_object *value;
        if (!json_at(doc, &pointers[i], NULL, &value))
            continue;
        const char *task_id =
            json_object_is_type(value, json_type_int) ? json_object_to_json_string(value) : json_text(value);
        if (task_id != NULL &&
            snprintf(path, sizeof(path), "%.*s/%s", len, variables, task_id) < (int)sizeof(path) &&
            pattern_takes_id(&route->path, path + 1)) {
            task_init(task, route, path + 1);
            return true;
        }
    }
    return false;
}

enum problem client_request_hint(const struct client_request *asked, const char *body, size_t len,
                                 struct task *ret_task)
{
    struct json_error error;
    if (len > HOOK_BODY_MAX)
        return PROBLEM_TOO_LARGE;
    struct json_object *doc = json_read(body, len, HOOK_DEPTH_MAX, JSON_PLAIN, &error);
    bool found = doc != NULL && find_id(asked->hook, hook_variables(asked->uri), doc, ret_task);
    json_object_put(doc);
    return found ? PROBLEM_NONE : PROBLEM_BAD_HOOK;
}

/* ---- proxy protocols: one path for everything, and the target URL in a header ---- */

static bool is_proxied(const struct conf *conf, const char *uri)
{
    size_t len = conf->proxy ? strlen(conf->proxy->path) : 0;
    return len > 0 && strncmp(uri, conf->proxy->path, len) == 0 && strchr("?#", uri[len]) != NULL;
}

/* The target must be a native or result path of a provider with this protocol. */
static enum problem find_target(const struct conf *conf, const struct fcgi_request *client,
                                struct answer_facts *facts, struct task *task)
{
    const char *origin = conf->proxy->origin;
    size_t origin_len = strlen(origin);
    char param[ACCESS_PARAM_SIZE];
    enum problem problem = PROBLEM_NO_TARGET;
    access_header_param(conf->proxy->header, param);
    const char *url = fcgi_param(client, param);
    if (url == NULL || strncmp(url, origin, origin_len) != 0)
        return PROBLEM_NO_TARGET;
    facts->kind = route_find(conf, url + origin_len, task, &problem);
    if ((facts->kind == ROUTE_NATIVE || facts->kind == ROUTE_RESULT) &&
        task->route->provider->proxy.path != NULL)
        return PROBLEM_NONE;
    facts->kind = ROUTE_NONE;
    task->route = NULL;
    return problem == PROBLEM_BAD_ID ? problem : PROBLEM_NO_TARGET;
}

/* ---- the request ---- */

static bool is_method(const char *method, const char *name)
{
    return method != NULL && strcmp(method, name) == 0;
}

static enum problem read_preferences(const struct conf *conf, const struct fcgi_request *client,
                                     struct client_request *asked, struct answer_facts *facts)
{
    const char *query = strchr(asked->uri, '?');
    int wait_s = client_request_wait(query ? query + 1 : NULL, fcgi_param(client, "HTTP_PREFER"));
    if (wait_s < 0)
        return PROBLEM_BAD_WAIT;
    asked->wait_s = wait_s;
    bool views = facts->kind == ROUTE_NATIVE || facts->kind == ROUTE_UNIFIED || facts->kind == ROUTE_MANY;
    asked->stream = views && answer_accepts(facts->accept, "text/event-stream") && fcgi_can_stream(client) &&
                    !facts->head_only;
    if (asked->wait_s == 0 && !asked->stream && fcgi_param(client, "NGINX_REPEATS") != NULL)
        facts->repeat_ms = conf->nginx_cache_ms; /* the answer depends on nothing else than the cache's key */
    return PROBLEM_NONE;
}

/* Reads the client's credentials. The access mode "open" needs none. */
static void read_credentials(const struct conf *conf, const struct fcgi_request *client,
                             struct client_request *asked, struct answer_facts *facts)
{
    char key_param[ACCESS_PARAM_SIZE];
    if (conf->access.mode == ACCESS_OPEN)
        return;
    facts->by_origin = true;
    const char *query = asked->uri ? strchr(asked->uri, '?') : NULL;
    const char *origin = fcgi_param(client, "HTTP_ORIGIN");
    asked->preflight = is_method(fcgi_param(client, "REQUEST_METHOD"), "OPTIONS");
    if (access_is_origin(conf, NULL, origin))
        facts->origin = origin;
    asked->foreign = origin != NULL && facts->origin == NULL;
    asked->given = (struct credentials){.authorization = fcgi_param(client, "HTTP_AUTHORIZATION"),
                                        .team = fcgi_param(client, "TASKPROXY_TEAM"),
                                        .query = query ? query + 1 : NULL};
    if (facts->key_header == NULL)
        return;
    access_header_param(facts->key_header, key_param);
    asked->given.key_header = fcgi_param(client, key_param);
}

static enum view_kind view_of(const struct answer_facts *facts, const char *prefer)
{
    bool native = facts->kind == ROUTE_RESULT ||
                  (facts->kind == ROUTE_NATIVE && !client_request_prefers_unified(prefer));
    return native ? VIEW_NATIVE : facts->offload ? VIEW_UNIFIED : VIEW_KEYED;
}

enum problem client_request_read(const struct conf *conf, const struct fcgi_request *client,
                                 struct client_request *asked, struct answer_facts *facts,
                                 struct task *ret_task)
{
    const char *method = fcgi_param(client, "REQUEST_METHOD");
    *asked = (struct client_request){.trace = trace_read(fcgi_param(client, "HTTP_TRACEPARENT")),
                                     .uri = fcgi_param(client, "REQUEST_URI"),
                                     .last_event_id = fcgi_param(client, "HTTP_LAST_EVENT_ID")};
    facts->head_only = is_method(method, "HEAD");
    facts->accept = fcgi_param(client, "HTTP_ACCEPT");
    facts->if_none_match = fcgi_param(client, "HTTP_IF_NONE_MATCH");
    enum problem problem = PROBLEM_BAD_REQUEST;
    bool proxied = asked->uri != NULL && is_proxied(conf, asked->uri);
    if (proxied) {
        facts->target_header = conf->proxy->header;
        problem = find_target(conf, client, facts, ret_task);
    } else if (asked->uri != NULL) {
        facts->kind = route_find(conf, asked->uri, ret_task, &problem);
    }
    if (ret_task->route != NULL)
        facts->key_header = ret_task->route->provider->auth.header;
    read_credentials(conf, client, asked, facts);
    /* The page can then read the problem of the request itself. No preflight contains a target header. */
    if (asked->preflight && (facts->origin != NULL || proxied))
        return PROBLEM_NONE;
    if (problem == PROBLEM_NOT_FOUND && (asked->hook = find_hook(conf, asked->uri)) != NULL) {
        facts->kind = ROUTE_HOOK;
        facts->allow = "POST";
        return is_method(method, "POST") ? PROBLEM_NONE : PROBLEM_METHOD;
    }
    if (facts->kind == ROUTE_CONTENT) {
        facts->content_number = route_content_number(asked->uri);
        facts->if_none_match = NULL; /* it refers to a file, not to a view */
    }
    facts->offload = fcgi_param(client, "CONTENT_OFFLOAD") != NULL;
    asked->view = view_of(facts, fcgi_param(client, "HTTP_PREFER"));
    if (problem == PROBLEM_NOT_FOUND)
        return problem;
    if (!facts->head_only && !asked->preflight && !is_method(method, "GET"))
        return proxied ? PROBLEM_SUBMIT : PROBLEM_METHOD;
    return problem == PROBLEM_NONE ? read_preferences(conf, client, asked, facts) : problem;
}

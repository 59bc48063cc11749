/* webhook: see webhook.h. */
#include "request/webhook.h"

#include <stdio.h>
#include <string.h>

#include <openssl/crypto.h>

#include "lib/json.h"

enum { DEPTH_MAX = 32, DIGEST_SIZE = 32 };

static const char prefix[] = "/v1/hooks/";

/* Compares digests, which have equal lengths, in constant time. */
static bool is_secret(const char *secret, const char *given, size_t given_len)
{
    unsigned char ours[DIGEST_SIZE], theirs[DIGEST_SIZE];
    sha256(secret, strlen(secret), ours);
    sha256(given, given_len, theirs);
    return CRYPTO_memcmp(ours, theirs, DIGEST_SIZE) == 0;
}

const struct conf_route *webhook_route(const struct conf *conf, const char *uri)
{
    const struct conf_route *found = NULL;
    if (strncmp(uri, prefix, strlen(prefix)) != 0)
        return NULL;
    const char *name = uri + strlen(prefix);
    size_t name_len = strcspn(name, "/?#");
    const char *secret = name + name_len + (name[name_len] == '/');
    for (size_t i = 0; i < conf->routes.n; i++) {
        const struct conf_route *route = conf_route(conf, i);
        const char *provider = route->provider->name;
        bool named = strlen(provider) == name_len && memcmp(provider, name, name_len) == 0;
        if (named && route->hook_secret.text != NULL &&
            is_secret(route->hook_secret.text, secret, strcspn(secret, "?#")) && found == NULL)
            found = route;
    }
    return found;
}

/* Finds the first of the provider's pointers that leads to a valid task id. */
static bool find_id(const struct conf_route *route, struct json_object *doc, struct task *task)
{
    const struct json_path *pointers = route->provider->hook.items;
    for (size_t i = 0; i < route->provider->hook.n; i++) {
        struct json_object *value;
        if (!json_at(doc, &pointers[i], NULL, &value))
            continue;
        const char *id =
            json_object_is_type(value, json_type_int) ? json_object_to_json_string(value) : json_text(value);
        if (id != NULL && strlen(id) < TASK_ID_MAX && pattern_takes_id(&route->path, id)) {
            task_init(task, route, id);
            return true;
        }
    }
    return false;
}

enum problem webhook_read(const struct conf_route *route, const char *body, size_t len, struct task *ret_task)
{
    struct json_error error;
    if (len > WEBHOOK_BODY_MAX)
        return PROBLEM_TOO_LARGE;
    struct json_object *doc = json_read(body, len, DEPTH_MAX, JSON_PLAIN, &error);
    bool found = doc != NULL && find_id(route, doc, ret_task);
    json_object_put(doc);
    return found ? PROBLEM_NONE : PROBLEM_BAD_HOOK;
}

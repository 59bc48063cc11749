/* route: see route.h. */
#include "task/route.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/sanitize.h"

enum { URI_MAX = 16384, CONTENT_DIGITS_MAX = 9 };

static const char unified_prefix[] = "/v1/tasks";

/* ---- one task ---- */

void task_init(struct task *task, const struct conf_route *route, const char *id)
{
    const char *const parts[] = {route->upstream->name, ":", route->provider->name, ":", id};
    task->route = route;
    task->key_len = 0;
    for (size_t i = 0; i < NELEMS(parts); i++) {
        size_t len = strlen(parts[i]);
        if (len >= sizeof(task->key) - task->key_len)
            abort(); /* the limits of names and ids exclude this */
        memcpy(task->key + task->key_len, parts[i], len + 1);
        task->id_at = task->key_len; /* in the end, that of the last part */
        task->key_len += len;
    }
}

/* A path and query as one of the provider's own. ROUTE_NONE: they are not; then *ret_problem is set. */
static enum route_kind take_native(const struct conf *conf, const char *path, const char *query,
                                   struct task *task, enum problem *ret_problem)
{
    char id[TASK_ID_MAX];
    *ret_problem = PROBLEM_NOT_FOUND;
    for (size_t i = 0; i < conf->routes.n; i++) {
        const struct conf_route *route = conf_route(conf, i);
        enum route_kind kind = ROUTE_NATIVE;
        enum pattern_match match = pattern_match(&route->path, path, query, id);
        if (match == PATTERN_OTHER && route->result_path != NULL) {
            kind = ROUTE_RESULT;
            match = pattern_match(route->result_path, path, query, id);
        }
        if (match == PATTERN_MATCHES) {
            task_init(task, route, id);
            *ret_problem = PROBLEM_NONE;
            return kind;
        }
        if (match == PATTERN_BAD_ID)
            *ret_problem = PROBLEM_BAD_ID;
    }
    return ROUTE_NONE;
}

enum problem route_named(const struct conf *conf, const char *name, struct task *task)
{
    size_t len = strcspn(name, "/");
    for (size_t i = 0; i < conf->routes.n && name[len] == '/'; i++) {
        const struct conf_route *route = conf_route(conf, i);
        const char *provider = route->provider->name, *id = name + len + 1;
        if (strlen(provider) != len || memcmp(provider, name, len) != 0)
            continue;
        if (strlen(id) >= TASK_ID_MAX || !pattern_takes_id(&route->path, id))
            return PROBLEM_BAD_ID;
        task_init(task, route, id);
        return PROBLEM_NONE;
    }
    return PROBLEM_NOT_FOUND;
}

/* The path after "/v1/tasks/". It must not contain an encoded slash, which would name another task. */
static enum problem take_unified(const struct conf *conf, const char *rest, struct task *task)
{
    char name[URI_MAX];
    if (strcasestr(rest, "%2f") != NULL || percent_decode(rest, strlen(rest), name, sizeof(name)) < 0)
        return PROBLEM_BAD_ID;
    return route_named(conf, name, task);
}

/* The path of a URI, or NULL if it is too long. */
static const char *split_uri(const char *uri, char path[static URI_MAX], const char **ret_query)
{
    size_t len = strcspn(uri, "?#");
    if (len >= URI_MAX)
        return NULL;
    memcpy(path, uri, len);
    path[len] = '\0';
    *ret_query = uri[len] == '?' ? uri + len + 1 : NULL;
    return path;
}

/* ---- the results themselves: "/content/N", or "/content" for the first one, after the path of a task ---- */

static size_t digits_behind(const char *path)
{
    size_t n = 0, len = strlen(path);
    while (n < len && isdigit((unsigned char)path[len - n - 1]))
        n++;
    return n;
}

size_t route_content_number(const char *uri)
{
    char path[URI_MAX];
    const char *query;
    if (split_uri(uri, path, &query) == NULL)
        return SIZE_MAX;
    char variant[16]; /* OpenAI's: video, thumbnail or spritesheet */
    if (query_value(query, "variant", variant, sizeof(variant)) && strcmp(variant, "video") != 0)
        return SIZE_MAX;
    return strtoul(path + strlen(path) - digits_behind(path), NULL, 10);
}

/* Returns false if the path does not end in that. */
static bool cut_content(char *path)
{
    size_t digits = digits_behind(path), len = strlen(path) - digits;
    const char *word = digits > 0 ? "/content/" : "/content";
    size_t word_len = strlen(word);
    if (digits > CONTENT_DIGITS_MAX || len < word_len || memcmp(path + len - word_len, word, word_len) != 0)
        return false;
    path[len - word_len] = '\0';
    return true;
}

/* Finds the task of a path. The providers' own paths come first: they may begin like ours. */
static enum route_kind find_task(const struct conf *conf, const char *path, const char *query,
                                 struct task *task, enum problem *ret_problem)
{
    const size_t prefix_len = strlen(unified_prefix);
    enum route_kind kind = take_native(conf, path, query, task, ret_problem);
    if (kind != ROUTE_NONE || strncmp(path, unified_prefix, prefix_len) != 0 || path[prefix_len] != '/')
        return kind;
    enum problem problem = take_unified(conf, path + prefix_len + 1, task);
    if (problem == PROBLEM_NONE || *ret_problem == PROBLEM_NOT_FOUND)
        *ret_problem = problem;
    return problem == PROBLEM_NONE ? ROUTE_UNIFIED : ROUTE_NONE;
}

enum route_kind route_find(const struct conf *conf, const char *uri, struct task *ret_task,
                           enum problem *ret_problem)
{
    char path[URI_MAX];
    const char *query;
    *ret_problem = PROBLEM_NONE;
    if (split_uri(uri, path, &query) == NULL) {
        *ret_problem = PROBLEM_BAD_REQUEST;
        return ROUTE_NONE;
    }
    if (strcmp(path, unified_prefix) == 0)
        return ROUTE_MANY;
    enum route_kind kind = find_task(conf, path, query, ret_task, ret_problem);
    if (kind != ROUTE_NONE || !cut_content(path))
        return kind;
    return find_task(conf, path, query, ret_task, ret_problem) == ROUTE_NONE ? ROUTE_NONE : ROUTE_CONTENT;
}

bool task_from_key(const struct conf *conf, const char *key, struct task *ret_task)
{
    for (size_t i = 0; i < conf->routes.n; i++) {
        const struct conf_route *route = conf_route(conf, i);
        task_init(ret_task, route, "");
        const char *id = key + ret_task->key_len;
        if (strncmp(key, ret_task->key, ret_task->key_len) == 0 && strlen(id) < TASK_ID_MAX &&
            pattern_takes_id(&route->path, id)) {
            task_init(ret_task, route, id);
            return true;
        }
    }
    return false;
}

/* ---- many tasks ---- */

int route_ids(const struct conf *conf, const char *uri, struct task *ret_tasks, enum problem *ret_problems)
{
    char path[URI_MAX], ids[URI_MAX], *rest = ids, *name;
    const char *query;
    int n = 0;
    if (split_uri(uri, path, &query) == NULL || !query_value(query, "ids", ids, sizeof(ids)))
        return -1;
    while ((name = strsep(&rest, ",")) != NULL) {
        if (name[0] == '\0' || n == ROUTE_IDS_MAX)
            return -1;
        ret_tasks[n].route = NULL;
        ret_problems[n] = route_named(conf, name, &ret_tasks[n]);
        if (ret_problems[n] != PROBLEM_NONE)
            sanitize_copy(ret_tasks[n].key, TASK_KEY_MAX, name, strlen(name));
        n++;
    }
    return n;
}

static bool takes_two_queries(const struct task *task)
{
    return task->route->provider->result.path != NULL;
}

int64_t task_timeout_ms(const struct task *task)
{
    return task->route->upstream->timeout_ms * (takes_two_queries(task) ? 2 : 1);
}

int64_t task_queries_max(const struct task *task)
{
    return (int64_t)task->route->upstream->keys.n + takes_two_queries(task);
}

struct snapshot_rules task_rules(const struct task *task, const struct conf_cache *conf)
{
    const struct provider_poll *poll = &task->route->provider->poll;
    return (struct snapshot_rules){.terminal_ttl_ms = conf->terminal_ttl_ms,
                                   .stale_for_ms = conf->stale_for_ms,
                                   .poll_min_ms = poll->min_ms,
                                   .poll_max_ms = poll->max_ms};
}

/* ---- nginx ----
 *
 * A provider's own path is its own key: most requests pass the map without a match. Other paths of
 * the same task are mapped to that path. The map looks at query strings only for patterns with the id in the query. */

static const char row_start[] = "    \"~^";

static bool has_query(const struct pattern *pattern)
{
    return pattern->parts[pattern->n_parts - 1].query_name != NULL;
}

static void print_literal(const char *literal, struct buf *out)
{
    for (const char *c = literal; *c != '\0'; c++)
        buf_addf(out, "%s%c", strchr(".+*()[]|^$?\\\"", *c) ? "\\" : "", *c);
}

/* A pattern as a regular expression over "PATH?QUERY", which captures the variables as tp1, tp2 and so on. Query
 * parameters may come in any order, hence the lookaheads. */
static void print_pattern_regex(const struct pattern *pattern, struct buf *out)
{
    size_t n = 0;
    buf_puts(out, row_start);
    for (size_t i = 0; i < pattern->n_parts; i++) {
        const struct pattern_part *part = &pattern->parts[i];
        if (part->query_name == NULL)
            buf_putc(out, '/');
        else if (pattern->parts[i - 1].query_name == NULL)
            buf_puts(out, "\\?");
        if (part->query_name == NULL && part->literal != NULL)
            print_literal(part->literal, out);
        else if (part->query_name == NULL)
            buf_addf(out, "(?<tp%zu>[^/?]+)", ++n);
        else if (part->grammar != NULL)
            buf_addf(out, "(?=(?:.*&)?%s=(?<tp%zu>[^&]+))", part->query_name, ++n);
    }
}

/* "/v1/tasks/PROVIDER/ID", and its results. */
static void print_unified_regex(const struct conf_route *route, bool with_query, struct buf *out)
{
    buf_addf(out, "%s%s/%s", row_start, unified_prefix, route->provider->name);
    for (size_t n = 1; n <= route->path.n_variables; n++)
        buf_addf(out, "/(?<tp%zu>[^/?]+)", n);
    buf_puts(out, "(?:/content(?:/[0-9]+)?)?");
    buf_puts(out, with_query ? "\\?" : "$");
}

/* The value of a row: the native path with the captured values. */
static void print_key(const struct pattern *pattern, struct buf *out)
{
    size_t n = 0;
    buf_puts(out, "\" \"");
    for (size_t i = 0; i < pattern->n_parts; i++) {
        const struct pattern_part *part = &pattern->parts[i];
        if (part->query_name != NULL)
            buf_addf(out, "?%s=", part->query_name);
        else
            buf_putc(out, '/');
        if (part->literal != NULL)
            buf_puts(out, part->literal);
        else
            buf_addf(out, "${tp%zu}", ++n);
    }
    buf_puts(out, "\";\n");
}

static void print_variable(const char *header, struct buf *out)
{
    buf_puts(out, " $http_");
    for (; *header != '\0'; header++)
        buf_putc(out, *header == '-' ? '_' : tolower((unsigned char)*header));
}

/* $NAME_uri: the path of the URL that a client of a proxy protocol means. */
static void print_targets(const struct provider_proxy *proxy, const char *name, struct buf *out)
{
    buf_puts(out, "map \"$uri");
    print_variable(proxy->header, out);
    buf_addf(out, "\" $%s_uri {\n    default $uri;\n    \"~^", name);
    print_literal(proxy->path, out);
    buf_putc(out, ' ');
    print_literal(proxy->origin, out);
    buf_puts(out, "(?<tp1>/[^?#]*)\" $tp1;\n}\n");
}

static void print_map(const struct conf *conf, const char *name, struct buf *out)
{
    bool with_query = false;
    const struct provider_proxy *proxy = conf->proxy;
    char *uri = proxy ? xasprintf("$%s_uri", name) : xstrdup("$uri");
    if (proxy != NULL)
        print_targets(proxy, name, out);
    for (size_t i = 0; i < conf->routes.n; i++)
        with_query |= has_query(&conf_route(conf, i)->path);
    buf_addf(out, "map \"%s%s\" $%s_task {\n    default %s;\n", uri, with_query ? "?$args" : "", name, uri);
    free(uri);
    buf_addf(out, "    \"~^%s%s\" $request_uri;\n", unified_prefix, with_query ? "\\?" : "$");
    for (size_t i = 0; i < conf->routes.n; i++) {
        const struct conf_route *route = conf_route(conf, i);
        if (route->named) {
            print_unified_regex(route, with_query, out);
            print_key(&route->path, out);
        }
        if (has_query(&route->path)) {
            print_pattern_regex(&route->path, out);
            print_key(&route->path, out);
        }
        if (route->result_path != NULL) {
            print_pattern_regex(route->result_path, out);
            buf_puts(out, with_query ? "\\?" : "$");
            print_key(&route->path, out);
        }
    }
    buf_addf(out, "    \"~^(?<tp1>/[^?]+)/content(?:/[0-9]+)?%s\" $tp1;\n", with_query ? "\\?" : "$");
    buf_puts(out, "}\n");
}

void route_origin_name(const char *url, struct buf *out)
{
    const char *host = strstr(url, "://") + 3;
    buf_puts(out, strncasecmp(url, "https", 5) == 0 ? "https_" : "http_");
    for (const char *c = host; *c != '\0' && strchr("/?#", *c) == NULL; c++)
        buf_putc(out, strchr(":[]", *c) != NULL ? '_' : (char)tolower((unsigned char)*c));
}

/* The servers that hold keyed results. nginx resolves their names when it starts, and needs no resolver. */
static void print_origin(const char *origin, const char *ca_file, const char *name, struct buf *out)
{
    const char *usual_port = strncmp(origin, "https:", 6) == 0 ? ":443" : ":80";
    const char *host = strstr(origin, "://") + 3, *port = strrchr(host, ':');
    bool has_port = port != NULL && port[strspn(port, ":0123456789")] == '\0';
    struct buf line;
    buf_init(&line, out->max);
    buf_addf(&line, "\nupstream %s_", name);
    route_origin_name(origin, &line);
    buf_puts(&line, " {\n");
    if (strstr(out->data, line.data) == NULL) {
        buf_addf(out, "%s    server %s%s;\n    keepalive 8;\n}\n", line.data, host,
                 has_port ? "" : usual_port);
        if (ca_file != NULL)
            buf_addf(out, "# proxy_ssl_trusted_certificate in taskproxy.conf must include %s.\n", ca_file);
    }
    buf_done(&line);
}

static void print_origins(const struct conf *conf, const char *name, struct buf *out)
{
    for (size_t i = 0; i < conf->routes.n; i++) {
        const struct conf_upstream *upstream = conf_route(conf, i)->upstream;
        const struct list *results = &conf_route(conf, i)->provider->unified.results;
        for (size_t k = 0; k < results->n; k++) {
            const struct result_field *field = (struct result_field *)results->items + k;
            char *const *origins = field->origins.items;
            if (field->download == DOWNLOAD_KEYED && field->origins.n == 0)
                print_origin(upstream->base_url, upstream->ca_file, name, out);
            for (size_t m = 0; m < field->origins.n; m++)
                print_origin(origins[m], NULL, name, out);
        }
    }
}

static void print_query_names(const struct pattern *pattern, struct buf *out)
{
    for (size_t i = 0; pattern != NULL && i < pattern->n_parts; i++) {
        if (pattern->parts[i].query_name == NULL)
            continue;
        buf_putc(out, '|');
        print_literal(pattern->parts[i].query_name, out);
    }
}

/* nginx's own cache, and the requests that may use it. Their queries only name tasks: the files contain the URI, and other
 * parameters could be credentials. There is no condition that nginx would check, but no worker, between the two spaces.
 * Without "*+", a long query would overflow PCRE's stack, and nginx would log it. */
static void print_cache(const struct conf *conf, const char *name, struct buf *out)
{
    if (conf->nginx_cache_ms == 0)
        return;
    buf_addf(
        out,
        "\n# The cache of taskproxy-cache.conf: at most 4,000 answers of 8 KiB, in memory.\n"
        "fastcgi_cache_path /run/%s-cache keys_zone=%s:512k max_size=32m inactive=10s use_temp_path=off;\n"
        "map \"$args $http_if_match$http_if_modified_since$http_if_unmodified_since $http_prefer "
        "$http_accept\" $%s_cache {\n"
        "    default \"\";\n"
        "    \"   \" %s; # no query and no such header: found without the expression\n"
        "    \"   */*\" %s;\n"
        "    \"~^(?:(?:^|&)(?:ids",
        name, name, name, name, name);
    for (size_t i = 0; i < conf->routes.n; i++) {
        print_query_names(&conf_route(conf, i)->path, out);
        print_query_names(conf_route(conf, i)->result_path, out);
    }
    buf_addf(out, ")=[^& ]*)*+  (?!.*(?i:wait|event-stream))\" %s;\n}\n", name);
}

void route_print_nginx(const struct conf *conf, const char *name, struct buf *out)
{
    buf_puts(out, "# Printed by taskproxy --print-nginx: include it in http {}.\n\n"
                  "# Each task always goes to the same worker, whichever path is requested.\n");
    print_map(conf, name, out);
    buf_addf(out, "\nupstream %s {\n    hash $%s_task consistent;\n", name, name);
    for (int64_t i = 0; i < conf->workers; i++)
        buf_addf(out, "    server unix:%s/worker-%lld.sock max_fails=0;\n", conf->socket_dir, (long long)i);
    buf_puts(out, "    keepalive 1024;\n}\n\n");
    buf_addf(out, "upstream %s_status {\n    server unix:%s/status.sock max_fails=0;\n    keepalive 2;\n}\n",
             name, conf->socket_dir);
    print_origins(conf, name, out);
    print_cache(conf, name, out);
}

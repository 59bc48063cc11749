/* route: see route.h. */
#include "route.h"

#include <stdio.h>
#include <string.h>

enum { URI_MAX = 8192 };

static enum problem take_native(const struct conf *conf, const char *path, const char *query, struct target *target)
{
    enum problem problem = PROBLEM_NOT_FOUND;
    for (size_t i = 0; i < conf->routes.n; i++) {
        const struct conf_route *route = conf_route(conf, i);
        enum pattern_match match = pattern_match(&route->path, path, query, target->task.id);
        if (match == PATTERN_MATCHES) {
            target->task.route = route;
            target->view = VIEW_NATIVE;
            return PROBLEM_NONE;
        }
        if (match == PATTERN_BAD_ID)
            problem = PROBLEM_BAD_ID;
    }
    return problem;
}

enum problem route_find(const struct conf *conf, const char *uri, struct target *ret_target)
{
    char path[URI_MAX];
    size_t len = strcspn(uri, "?#");
    if (len >= sizeof(path))
        return PROBLEM_BAD_REQUEST;
    memcpy(path, uri, len);
    path[len] = '\0';
    const char *query = uri[len] == '?' ? uri + len + 1 : NULL;
    return take_native(conf, path, query, ret_target);
}

void task_key(const struct task *task, struct buf *out)
{
    buf_addf(out, "%s:%s:%s", task->route->upstream->name, task->route->provider->name, task->id);
}

/* ---- nginx ---- */

/* A pattern as a regular expression of nginx's, which captures the variables as tp1, tp2 ... */
static void print_regex(const struct pattern *pattern, struct buf *out)
{
    size_t n = 0;
    for (size_t i = 0; i < pattern->n_parts; i++) {
        const struct pattern_part *part = &pattern->parts[i];
        buf_putc(out, '/');
        if (part->grammar != NULL)
            buf_addf(out, "(?<tp%zu>[^/]+)", ++n);
        for (const char *c = part->literal; c != NULL && *c != '\0'; c++)
            buf_addf(out, "%s%c", strchr(".+*()[]|^$\\\"", *c) ? "\\" : "", *c);
    }
}

static void print_map_row(const struct conf_route *route, struct buf *out)
{
    buf_puts(out, "    \"~^");
    print_regex(&route->path, out);
    buf_addf(out, "$\" \"%s", route->provider->name);
    for (size_t n = 1; n <= route->path.n_variables; n++)
        buf_addf(out, "/$tp%zu", n);
    buf_puts(out, "\";\n");
}

void route_print_nginx(const struct conf *conf, struct buf *out)
{
    buf_puts(out, "# Printed by taskproxy --print-nginx: include it in http {}.\n\n"
                  "# One task always goes to the same worker.\n"
                  "map $uri $taskproxy_task {\n"
                  "    default $uri;\n");
    for (size_t i = 0; i < conf->routes.n; i++)
        print_map_row(conf_route(conf, i), out);
    buf_puts(out, "}\n\nupstream taskproxy {\n    hash $taskproxy_task consistent;\n");
    for (int64_t i = 0; i < conf->workers; i++)
        buf_addf(out, "    server unix:%s/worker-%lld.sock max_fails=0;\n", conf->socket_dir, (long long)i);
    buf_puts(out, "    keepalive 64;\n}\n\n");
    buf_addf(out, "upstream taskproxy_status {\n    server unix:%s/status.sock max_fails=0;\n    keepalive 2;\n}\n",
             conf->socket_dir);
}

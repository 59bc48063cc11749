/* sign: see sign.h. */
#include "cli/sign.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "access/link.h"
#include "task/route.h"

enum { TOKEN_BYTES = 32, DIGEST_DIGITS = 64 };

int sign_new_token(void)
{
    unsigned char random[TOKEN_BYTES];
    char hex[2 * TOKEN_BYTES + 1], digest[DIGEST_DIGITS + 1];
    random_bytes(random, sizeof(random));
    hex_encode(random, sizeof(random), hex);
    char *token = xasprintf("tp-%s", hex);
    sha256_hex(token, strlen(token), DIGEST_DIGITS, digest);
    printf("%s\n\"token_sha256\": [\"%s\"]\n", token, digest);
    free(token);
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* Seconds; -1 if the lifetime is out of range. */
static int64_t read_ttl(const char *text, int64_t max_ms)
{
    int64_t ms;
    if (parse_duration(text, &ms) < 0 || ms < 1000 || ms > max_ms)
        return -1;
    return ms / 1000;
}

/* The functions below return an error, allocated, or NULL. */

static char *check_task(const struct conf *conf, const struct team *team, const char *name)
{
    struct task task;
    enum problem problem = route_named(conf, name, &task);
    if (problem != PROBLEM_NONE)
        return xasprintf(problem == PROBLEM_BAD_ID ? "\"%s\": not a valid task id for this provider"
                                                   : "\"%s\": no route has this provider",
                         name);
    if (!team_may_use(team, task.route->provider))
        return xasprintf("team \"%s\" may not use provider \"%s\"", team->name, task.route->provider->name);
    return NULL;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorts the names, drops duplicates, and joins them. */
static char *join_names(char **names, size_t n, struct buf *out)
{
    qsort(names, n, sizeof(*names), compare_texts);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || strcmp(names[i - 1], names[i]) != 0)
            buf_addf(out, "%s%s", i > 0 ? "," : "", names[i]);
    }
    return out->len < LINK_TASKS_SIZE ? NULL : xasprintf("--tasks: the list is too long");
}

static char *take_list(const struct conf *conf, const struct team *team, const char *list, struct buf *out)
{
    char *copy = xstrdup(list), *rest = copy, *names[LINK_LIST_MAX], *error = NULL;
    size_t n = 0;
    while (error == NULL && rest != NULL && n < LINK_LIST_MAX) {
        names[n] = strsep(&rest, ",");
        error = check_task(conf, team, names[n++]);
    }
    if (error == NULL)
        error = rest != NULL ? xasprintf("--tasks: more than %d tasks", LINK_LIST_MAX)
                             : join_names(names, n, out);
    free(copy);
    return error;
}

static char *print_link(const struct link *link, const char *secret)
{
    struct buf query;
    char sig[LINK_SIG_SIZE];
    buf_init(&query, 4 * LINK_TASKS_SIZE);
    link_sign(secret, link, sig);
    if (link->is_list) {
        buf_puts(&query, "tasks=");
        buf_add_percent(&query, link->tasks);
        buf_putc(&query, '&');
    }
    buf_addf(&query, "team=%s&exp=%lld%s%s&sig=%s\n", link->team, (long long)link->exp,
             link->kid[0] != '\0' ? "&kid=" : "", link->kid, sig);
    fputs(query.data, stdout);
    buf_done(&query);
    return fflush(stdout) == 0 ? NULL : xasprintf("cannot print the link: %s", strerror(errno));
}

static char *sign(const struct conf *conf, const struct team *team, const struct sign_order *order,
                  int64_t exp)
{
    const struct named_secret *named = team_link_secrets(team);
    bool has_named = team->link_secrets.n > 0;
    const char *secret = has_named ? named->secret.text : team->plain_link_secrets[0].text;
    struct link link = {.exp = exp, .is_list = order->tasks != NULL};
    struct buf tasks;
    if (secret == NULL)
        return xasprintf("team \"%s\" has neither link_secrets nor a link_secret_file", team->name);
    buf_init(&tasks, 2 * LINK_TASKS_SIZE);
    char *error =
        link.is_list ? take_list(conf, team, order->tasks, &tasks) : check_task(conf, team, order->task);
    snprintf(link.team, sizeof(link.team), "%s", team->name);
    snprintf(link.kid, sizeof(link.kid), "%s", has_named ? named->name : "");
    snprintf(link.tasks, sizeof(link.tasks), "%s", link.is_list ? tasks.data : order->task);
    buf_done(&tasks);
    return error != NULL ? error : print_link(&link, secret);
}

char *sign_link(const struct conf *conf, const struct sign_order *order)
{
    char longest[32];
    if (order->team == NULL || (order->task == NULL) == (order->tasks == NULL) || order->ttl == NULL)
        return xasprintf("--sign requires --team, either --task or --tasks, and --ttl");
    int64_t ttl_s = read_ttl(order->ttl, conf->access.link_max_ttl_ms);
    format_duration(conf->access.link_max_ttl_ms, longest);
    if (ttl_s < 0)
        return xasprintf("--ttl must be a duration from \"1s\" to \"%s\" (link_max_ttl)", longest);
    if (conf->teams.list.n == 0)
        return xasprintf("the configuration names no teams_file");
    const struct team *team = teams_by_name(&conf->teams, order->team);
    if (team == NULL)
        return xasprintf("team \"%s\" is not in %s", order->team, conf->access.teams_file);
    return sign(conf, team, order, wall_ms() / 1000 + ttl_s);
}

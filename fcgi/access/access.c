/* access: see access.h. */
#include "access/access.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "access/link.h"

/* ---- tokens ---- */

void access_header_param(const char *header, char out[static ACCESS_PARAM_SIZE])
{
    static const char prefix[] = "HTTP_";
    size_t len = 0;
    memcpy(out, prefix, sizeof(prefix));
    for (len = strlen(prefix); *header != '\0' && len < ACCESS_PARAM_SIZE - 1; header++)
        out[len++] = *header == '-' ? '_' : (char)toupper((unsigned char)*header);
    out[len] = '\0';
}

struct token {
    const char *text; /* NULL: there is none */
    size_t len;
};

/* The part of a header where `form` has {key}: "Bearer {key}". The scheme is case-insensitive. */
static struct token token_in(const char *header, const char *form)
{
    const struct token none = {0};
    const char *key = strstr(form, "{key}");
    if (header == NULL || key == NULL || strncasecmp(header, form, (size_t)(key - form)) != 0)
        return none;
    header += key - form;
    header += strspn(header, " ");
    size_t len = strlen(header), behind = strlen(key + strlen("{key}"));
    if (len <= behind || strcmp(header + len - behind, key + strlen("{key}")) != 0)
        return none;
    return (struct token){.text = header, .len = len - behind};
}

static struct token find_token(const struct credentials *given, const struct task *task)
{
    struct token token = {0};
    if (task != NULL)
        token = token_in(given->key_header, task->route->provider->auth.value);
    return token.text ? token : token_in(given->authorization, "Bearer {key}");
}

/* ---- links ---- */

/* Whether the name of the task refers to this route, and fits into the link. */
static bool name_task(const struct task *task, struct link *link)
{
    return task != NULL && task->route->named &&
           snprintf(link->tasks, sizeof(link->tasks), "%s/%s", task->route->provider->name, task_id(task)) <
               (int)sizeof(link->tasks);
}

static enum problem verify_link(const struct conf *conf, struct link *link, const struct task *task,
                                int64_t now_s, struct caller *ret_caller)
{
    const struct team *team = teams_by_name(&conf->teams, link->team);
    if (team == NULL || (!link->is_list && !name_task(task, link)))
        return PROBLEM_WRONG_LINK;
    enum problem problem = link_check(link, team, now_s, conf->access.link_max_ttl_ms / 1000);
    if (problem == PROBLEM_NONE)
        *ret_caller = (struct caller){
            .team = team, .tasks = link->is_list ? xstrdup(link->tasks) : NULL, .until_ms = link->exp * 1000};
    return problem;
}

/* ---- authentication ---- */

/* The team given by its token or by the web server; PROBLEM_NO_CREDENTIAL if neither is present. */
static enum problem find_team(const struct conf *conf, const struct credentials *given,
                              const struct task *task, const struct team **ret_team)
{
    if (conf->access.mode == ACCESS_NGINX) {
        *ret_team = given->team ? teams_by_name(&conf->teams, given->team) : NULL;
        return *ret_team != NULL ? PROBLEM_NONE : given->team ? PROBLEM_NO_TEAM : PROBLEM_NO_CREDENTIAL;
    }
    const struct token token = find_token(given, task);
    if (token.text == NULL)
        return PROBLEM_NO_CREDENTIAL;
    *ret_team = teams_by_token(&conf->teams, token.text, token.len);
    return *ret_team != NULL ? PROBLEM_NONE : PROBLEM_WRONG_TOKEN;
}

enum problem access_authenticate(const struct conf *conf, const struct credentials *given,
                                 const struct task *task, int64_t now_s, struct caller *ret_caller)
{
    struct link link;
    *ret_caller = (struct caller){.until_ms = INT64_MAX};
    if (conf->access.mode == ACCESS_OPEN)
        return PROBLEM_NONE;
    enum problem problem = find_team(conf, given, task, &ret_caller->team);
    if (problem == PROBLEM_NO_CREDENTIAL) {
        problem = link_read(given->query, &link);
        if (problem == PROBLEM_NONE)
            problem = verify_link(conf, &link, task, now_s, ret_caller);
    }
    if (problem == PROBLEM_NO_CREDENTIAL && conf->access.mode == ACCESS_NGINX)
        problem = PROBLEM_NO_TEAM;
    if (problem == PROBLEM_NONE && task != NULL)
        problem = access_authorize(ret_caller->team, ret_caller->tasks, task);
    return problem;
}

enum problem access_authorize(const struct team *team, const char *tasks, const struct task *task)
{
    const struct provider *provider = task->route->provider;
    if (tasks != NULL && (!task->route->named || !link_has_task(tasks, provider->name, task_id(task))))
        return PROBLEM_WRONG_LINK;
    return team == NULL || team_may_use(team, provider) ? PROBLEM_NONE : PROBLEM_FORBIDDEN;
}

/* ---- pages ---- */

bool access_is_origin(const struct conf *conf, const struct team *team, const char *origin)
{
    if (conf->access.mode == ACCESS_OPEN || origin == NULL)
        return false;
    return team != NULL ? team_has_origin(team, origin) : teams_have_origin(&conf->teams, origin);
}

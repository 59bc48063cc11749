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

char *sign_link(const struct conf *conf, const struct sign_order *order)
{
    struct task task;
    char sig[LINK_SIG_SIZE], longest[32];
    if (order->team == NULL || order->task == NULL || order->ttl == NULL)
        return xasprintf("--sign requires --team, --task and --ttl");
    int64_t ttl_s = read_ttl(order->ttl, conf->access.link_max_ttl_ms);
    format_duration(conf->access.link_max_ttl_ms, longest);
    if (ttl_s < 0)
        return xasprintf("--ttl must be a duration from \"1s\" to \"%s\" (link_max_ttl)", longest);
    if (conf->teams == NULL)
        return xasprintf("the configuration names no teams_file");
    const struct team *team = teams_by_name(conf->teams, order->team);
    if (team == NULL)
        return xasprintf("team \"%s\" is not in %s", order->team, conf->access.teams_file);
    const struct named_secret *named = team_link_secrets(team);
    bool has_named = team->link_secrets.n > 0;
    const char *kid = has_named ? named->name : "",
               *secret = has_named ? named->secret.text : team->plain_link_secrets[0].text;
    if (secret == NULL)
        return xasprintf("team \"%s\" has neither link_secrets nor a link_secret_file", team->name);
    enum problem problem = route_named(conf, order->task, &task);
    if (problem != PROBLEM_NONE)
        return xasprintf(problem == PROBLEM_BAD_ID ? "\"%s\": not a valid task id for this provider"
                                                   : "\"%s\": no route has this provider",
                         order->task);
    const char *provider = task.route->provider->name;
    if (!team_may_use(team, task.route->provider))
        return xasprintf("team \"%s\" may not use provider \"%s\"", team->name, provider);
    int64_t exp = wall_ms() / 1000 + ttl_s;
    link_sign(secret, kid, team->name, provider, task_id(&task), exp, sig);
    printf("team=%s&exp=%lld%s%s&sig=%s\n", team->name, (long long)exp, *kid ? "&kid=" : "", kid, sig);
    return fflush(stdout) == 0 ? NULL : xasprintf("cannot print the link: %s", strerror(errno));
}

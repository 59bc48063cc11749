/* teams: see teams.h. */
#include "config/teams.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

enum { LINK_SECRET_MIN = 32, DIGEST_LEN = 64 };

/* ---- checks of single values, for the table: the reason to refuse one, or NULL ---- */

static const char *refuse_digest(const void *value)
{
    const char *digest = *(char *const *)value;
    if (strspn(digest, "0123456789abcdef") == DIGEST_LEN && digest[DIGEST_LEN] == '\0')
        return NULL;
    return "must be a SHA-256 digest: 64 hexadecimal digits in lower case, as taskproxy --new-token prints "
           "them";
}

static const char *refuse_link_secret(const void *value)
{
    const struct secret *secret = value;
    return strlen(secret->text) < LINK_SECRET_MIN ? "must name a file with at least 32 characters" : NULL;
}

/* A port (after its colon), as browsers write it. */
static const char *refuse_port(const char *port, bool https)
{
    int64_t number;
    if (port[0] < '1' || port[0] > '9' || parse_int(port, &number) < 0 || number > 65535)
        return "has an invalid port";
    if (number == (https ? 443 : 80))
        return "must omit the default port of its scheme, as browsers do";
    return NULL;
}

/* Why no browser sends this as the origin of a page; NULL if one may. */
static const char *refuse_origin(const void *value)
{
    const char *origin = *(char *const *)value;
    static const char form[] = "must be a scheme, a host and optionally a port, such as "
                               "\"https://app.example.com\"";
    if (strcmp(origin, "null") == 0)
        return "\"null\" is the origin of all sandboxed pages and local files and identifies none of them";
    if (strcspn(origin, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != strlen(origin))
        return "must be in lower case, as browsers send it";
    bool https = strncmp(origin, "https://", 8) == 0;
    if (!https && strncmp(origin, "http://", 7) != 0)
        return form;
    const char *host = origin + (https ? 8 : 7);
    if (strchr(host, '/') != NULL)
        return "must end with the host or port: an origin has neither a path nor a trailing '/'";
    size_t len = strspn(host, "abcdefghijklmnopqrstuvwxyz0123456789-.");
    if (host[0] == '[') {
        len = 1 + strspn(host + 1, "0123456789abcdef:.");
        len = host[len] == ']' ? len + 1 : 0;
    }
    if (len == 0 || (host[len] != ':' && host[len] != '\0'))
        return form;
    return host[len] == ':' ? refuse_port(host + len + 1, https) : NULL;
}

/* ---- the table ---- */

#define TEAM struct team
static const struct field team_fields[] = {
    MEMBER(S_STRINGS, TEAM, token_sha256, REQUIRED, "digests of one token, or of two during a change",
           .max = TEAM_TOKENS_MAX, .refuse = refuse_digest),
    MEMBER(S_STRINGS, TEAM, providers, REQUIRED, "providers that the team may use", ),
    MEMBER(S_STRINGS, TEAM, origins, "[]", "web pages that may use its tokens and links (CORS)",
           .refuse = refuse_origin),
    MEMBER(S_MAP_SECRET, TEAM, link_secrets, "{}",
           "files with the secrets that sign its links, each by the kid of its links",
           .max = TEAM_NAMED_SECRETS_MAX, .refuse = refuse_link_secret),
    FIELD("link_secret_file", S_SECRET, TEAM, plain_link_secrets[0], "null",
          "file with the secret that signs links without a kid", .min = LINK_SECRET_MIN),
    FIELD("old_link_secret_file", S_SECRET, TEAM, plain_link_secrets[1], "null",
          "file with the previous secret of such links", .min = LINK_SECRET_MIN),
    MEMBER(S_INT, TEAM, queries_per_minute, "0", "queries to upstreams per minute; 0: no limit",
           .max = 1000000),
    MEMBER(S_INT, TEAM, watchers, "0",
           "tasks that its held requests and streams wait for, in one worker; 0: no limit", .max = 1000000),
};
const struct table team_table = TABLE(TEAM, team_fields);

static const char *text_at(const struct list *list, size_t i)
{
    return ((char *const *)list->items)[i];
}

static bool list_has(const struct list *list, const char *text)
{
    return list_find(list, sizeof(char *), text) != NULL;
}

/* ---- checks that the table cannot make; each returns an error, allocated, or NULL ---- */

struct loader {
    const struct teams *teams;
    const struct list *providers;
    struct schema_source source;
};

/* Why the digest is refused: the token would identify two teams, or one team twice. */
static const char *refuse_double(const struct teams *teams, const struct team *team, size_t i)
{
    const char *digest = text_at(&team->token_sha256, i);
    for (const struct team *other = teams_at(teams, 0); other != team; other++) {
        if (list_has(&other->token_sha256, digest))
            return "another team has the same token";
    }
    const struct list before = {.items = team->token_sha256.items, .n = i};
    return list_has(&before, digest) ? "the same token is listed twice" : NULL;
}

static char *check_tokens(const struct loader *l, const struct team *team)
{
    for (size_t i = 0; i < team->token_sha256.n; i++) {
        const char *why = refuse_double(l->teams, team, i);
        if (why != NULL)
            return schema_error(&l->source, "/%s/token_sha256/%zu: %s", team->name, i, why);
    }
    return NULL;
}

static char *check_providers(const struct loader *l, const struct team *team)
{
    const struct provider *const *all = l->providers->items;
    struct buf names;
    char *error = NULL;
    buf_init(&names, 4096);
    for (size_t i = 0; i < l->providers->n; i++)
        buf_addf(&names, "%s\"%s\"", i > 0 ? ", " : "", all[i]->name);
    for (size_t i = 0; i < team->providers.n && error == NULL; i++) {
        if (provider_find(l->providers, text_at(&team->providers, i)) == NULL)
            error = schema_error(&l->source,
                                 "/%s/providers/%zu: no route has this provider; configured providers: %s",
                                 team->name, i, names.data);
    }
    buf_done(&names);
    return error;
}

static char *finish(const struct loader *l)
{
    char *error = NULL;
    for (size_t i = 0; i < l->teams->list.n && error == NULL; i++) {
        const struct team *team = teams_at(l->teams, i);
        error = check_tokens(l, team);
        if (error == NULL)
            error = check_providers(l, team);
        if (error == NULL && team->plain_link_secrets[0].text == NULL &&
            team->plain_link_secrets[1].text != NULL)
            error = schema_error(&l->source,
                                 "/%s/old_link_secret_file: requires a link_secret_file, which replaces it",
                                 team->name);
    }
    return error;
}

char *teams_load(struct files *files, const struct file *file, const struct list *providers,
                 struct teams *out)
{
    const struct loader l = {.teams = out, .providers = providers, .source = {.file = file, .files = files}};
    char *error = NULL;
    if (schema_read_map(&team_table, &l.source, &out->list, &error) == 0)
        error = finish(&l);
    return error;
}

void teams_done(struct teams *teams)
{
    schema_done_map(&team_table, &teams->list);
}

/* ---- looking up ---- */

const struct team *teams_by_name(const struct teams *teams, const char *name)
{
    return list_find(&teams->list, sizeof(struct team), name);
}

/* Compares every digest in constant time, so that timing reveals nothing. */
const struct team *teams_by_token(const struct teams *teams, const char *token, size_t len)
{
    char text[DIGEST_LEN + 1];
    const struct team *found = NULL;
    sha256_hex(token, len, DIGEST_LEN, text);
    for (size_t i = 0; i < teams->list.n; i++) {
        const struct team *team = teams_at(teams, i);
        for (size_t k = 0; k < team->token_sha256.n; k++) {
            bool same = CRYPTO_memcmp(text_at(&team->token_sha256, k), text, DIGEST_LEN) == 0;
            found = same ? team : found;
        }
    }
    return found;
}

bool team_may_use(const struct team *team, const struct provider *provider)
{
    return list_has(&team->providers, provider->name);
}

bool team_has_origin(const struct team *team, const char *origin)
{
    return list_has(&team->origins, origin);
}

bool teams_have_origin(const struct teams *teams, const char *origin)
{
    for (size_t i = 0; i < teams->list.n; i++) {
        if (team_has_origin(teams_at(teams, i), origin))
            return true;
    }
    return false;
}

/* teams: see teams.h. */
#include "config/teams.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "lib/files.h"

enum { LINK_SECRET_MIN = 32, DIGEST_LEN = 64 };

#define TEAM struct team
static const struct field team_fields[] = {
    KEY_FIELD(TEAM, name),
    FIELD("token_sha256", S_STRINGS, TEAM, token_sha256, REQUIRED,
          "digests of one token, or of two during a change", ),
    FIELD("providers", S_STRINGS, TEAM, providers, REQUIRED, "providers that the team may use", ),
    FIELD("origins", S_STRINGS, TEAM, origins, "[]", "web pages that may use its tokens and links (CORS)", ),
    FIELD("link_secret_file", S_PATH, TEAM, link_secret_file, "null",
          "file with the secret that signs its links", ),
    FIELD("old_link_secret_file", S_PATH, TEAM, old_link_secret_file, "null",
          "file with the previous secret", ),
    FIELD("queries_per_minute", S_INT, TEAM, queries_per_minute, "0",
          "queries to upstreams per minute; 0: no limit", .max = 1000000),
    FIELD("watchers", S_INT, TEAM, watchers, "0",
          "held requests and event streams in one worker; 0: no limit", .max = 1000000),
};
const struct table team_table = TABLE(TEAM, team_fields);

static const char *text_at(const struct list *list, size_t i)
{
    return ((char *const *)list->items)[i];
}

static bool list_has(const struct list *list, const char *text)
{
    for (size_t i = 0; i < list->n; i++) {
        if (strcmp(text_at(list, i), text) == 0)
            return true;
    }
    return false;
}

/* ---- checks that the table cannot make; each returns an error, allocated, or NULL ---- */

struct loader {
    struct teams *teams;
    struct files *files;
    const struct list *providers;
    struct schema_source source;
};

static char *team_error(const struct loader *l, const struct team *team, const char *key, size_t i,
                        const char *what)
{
    char *pointer = xasprintf("/%s/%s/%zu", team->name, key, i);
    char *error = schema_error(&l->source, pointer, "%s", what);
    free(pointer);
    return error;
}

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

static const char *refuse_digest(const char *digest)
{
    if (strspn(digest, "0123456789abcdef") == DIGEST_LEN && digest[DIGEST_LEN] == '\0')
        return NULL;
    return "must be a SHA-256 digest: 64 hexadecimal digits in lower case, as taskproxy --new-token prints "
           "them";
}

static char *check_tokens(const struct loader *l, const struct team *team)
{
    if (team->token_sha256.n > TEAM_TOKENS_MAX)
        return team_error(l, team, "token_sha256", TEAM_TOKENS_MAX, "a team has at most two tokens");
    for (size_t i = 0; i < team->token_sha256.n; i++) {
        const char *why = refuse_digest(text_at(&team->token_sha256, i));
        if (why == NULL)
            why = refuse_double(l->teams, team, i);
        if (why != NULL)
            return team_error(l, team, "token_sha256", i, why);
    }
    return NULL;
}

/* The names of all configured providers, for the error message. */
static void list_providers(const struct list *providers, struct buf *out)
{
    const struct provider *const *all = providers->items;
    for (size_t i = 0; i < providers->n; i++)
        buf_addf(out, "%s\"%s\"", i > 0 ? ", " : "", all[i]->name);
}

static bool is_served(const struct list *providers, const char *name)
{
    const struct provider *const *all = providers->items;
    for (size_t i = 0; i < providers->n; i++) {
        if (strcmp(all[i]->name, name) == 0)
            return true;
    }
    return false;
}

static char *check_providers(const struct loader *l, const struct team *team)
{
    for (size_t i = 0; i < team->providers.n; i++) {
        if (is_served(l->providers, text_at(&team->providers, i)))
            continue;
        struct buf what;
        buf_init(&what, 4096);
        buf_puts(&what, "no route has this provider; configured providers: ");
        list_providers(l->providers, &what);
        char *error = team_error(l, team, "providers", i, what.data);
        buf_done(&what);
        return error;
    }
    return NULL;
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
static const char *refuse_origin(const char *origin)
{
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

static char *check_origins(const struct loader *l, const struct team *team)
{
    for (size_t i = 0; i < team->origins.n; i++) {
        const char *why = refuse_origin(text_at(&team->origins, i));
        if (why != NULL)
            return team_error(l, team, "origins", i, why);
    }
    return NULL;
}

static char *load_link_secret(const struct loader *l, struct team *team, const char *key, const char *path,
                              char **ret_secret)
{
    char *why;
    if (path == NULL)
        return NULL;
    *ret_secret = secret_read(l->files, path, LINK_SECRET_MIN, &why);
    if (*ret_secret != NULL)
        return NULL;
    char *pointer = xasprintf("/%s/%s", team->name, key);
    char *error = schema_error(&l->source, pointer, "\"%s\" %s", path, why);
    free(pointer);
    free(why);
    return error;
}

static char *load_link_secrets(const struct loader *l, struct team *team)
{
    if (team->link_secret_file == NULL && team->old_link_secret_file != NULL) {
        char *pointer = xasprintf("/%s/old_link_secret_file", team->name);
        char *error = schema_error(&l->source, pointer, "requires a link_secret_file, which replaces it");
        free(pointer);
        return error;
    }
    char *error =
        load_link_secret(l, team, "link_secret_file", team->link_secret_file, &team->link_secrets[0]);
    if (error == NULL)
        error = load_link_secret(l, team, "old_link_secret_file", team->old_link_secret_file,
                                 &team->link_secrets[1]);
    return error;
}

static char *finish(const struct loader *l)
{
    char *error = NULL;
    if (l->teams->list.n == 0)
        return schema_error(&l->source, "", "must name at least one team");
    for (size_t i = 0; i < l->teams->list.n && error == NULL; i++) {
        struct team *team = (struct team *)l->teams->list.items + i;
        error = check_tokens(l, team);
        if (error == NULL)
            error = check_providers(l, team);
        if (error == NULL)
            error = check_origins(l, team);
        if (error == NULL)
            error = load_link_secrets(l, team);
    }
    return error;
}

struct teams *teams_load(struct files *files, const struct file *file, const struct list *providers,
                         char **ret_error)
{
    struct teams *teams = xcalloc(1, sizeof(*teams));
    const struct loader l = {.teams = teams,
                             .files = files,
                             .providers = providers,
                             .source = {.path = file->path, .text = file->data, .len = file->len}};
    *ret_error = NULL;
    if (schema_read_map(&team_table, &l.source, &teams->list, ret_error) == 0)
        *ret_error = finish(&l);
    if (*ret_error == NULL)
        return teams;
    teams_free(teams);
    return NULL;
}

void teams_free(struct teams *teams)
{
    if (teams == NULL)
        return;
    for (size_t i = 0; i < teams->list.n; i++) {
        for (size_t k = 0; k < TEAM_LINK_SECRETS; k++)
            vault_free(teams_at(teams, i)->link_secrets[k]);
    }
    schema_done_map(&team_table, &teams->list);
    free(teams);
}

/* ---- looking up ---- */

const struct team *teams_by_name(const struct teams *teams, const char *name)
{
    for (size_t i = 0; i < teams->list.n; i++) {
        if (strcmp(teams_at(teams, i)->name, name) == 0)
            return teams_at(teams, i);
    }
    return NULL;
}

/* Compares every digest in constant time, so that timing reveals nothing. */
const struct team *teams_by_token(const struct teams *teams, const char *token, size_t len)
{
    unsigned char digest[DIGEST_LEN / 2];
    char text[DIGEST_LEN + 1];
    const struct team *found = NULL;
    sha256(token, len, digest);
    hex_encode(digest, sizeof(digest), text);
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

bool teams_have_origin(const struct teams *teams, const struct provider *provider, const char *origin)
{
    for (size_t i = 0; i < teams->list.n; i++) {
        const struct team *team = teams_at(teams, i);
        if ((provider == NULL || team_may_use(team, provider)) && team_has_origin(team, origin))
            return true;
    }
    return false;
}

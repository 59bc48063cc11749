/* teams: the file teams.json, read and checked.
 *
 *     { "web": { "token_sha256": ["9f86..."], "providers": ["sora"], "origins": ["https://app.example.com"],
 *                "link_secrets": { "2026-01": "secrets/web-links" }, "queries_per_minute": 600, "watchers": 2000 } }
 *
 * It holds only digests of tokens. A team has two of them while one token replaces another. */
#ifndef TEAMS_H
#define TEAMS_H

#include "config/provider.h"

enum { TEAMS_FILE_MAX = 1024 * 1024, TEAM_TOKENS_MAX = 2, TEAM_LINK_SECRETS = 2, TEAM_NAMED_SECRETS_MAX = 8 };

struct team {
    char *name;
    struct list token_sha256; /* of char *: 64 hex digits, lower case */
    struct list providers;    /* of char *: the providers that it may use */
    struct list origins;      /* of char *: origins of web pages that may use its links and tokens (CORS) */
    struct list
        link_secrets; /* of struct named_secret: those of signed links with a `kid`, which is the name */
    struct secret
        plain_link_secrets[TEAM_LINK_SECRETS]; /* of links without: the present and the previous one */
    int64_t queries_per_minute;                /* queries to upstreams; 0: no limit */
    int64_t watchers;                          /* tasks that they wait for in one worker; 0: no limit */
};

struct teams {
    struct list list; /* of struct team */
};

extern const struct table team_table; /* of one team, for the manual */

/* Parses `file` into the zeroed `out`, which then has at least one team, and reads the secrets that it names into
 * `files`. `providers` (of struct provider *) are the configured ones. NULL, or an error (allocated), which names file,
 * line and key. In both cases, teams_done() frees the teams. */
MUST_CHECK char *teams_load(struct files *files, const struct file *file, const struct list *providers,
                            struct teams *out);
void teams_done(struct teams *teams);

static inline const struct team *teams_at(const struct teams *teams, size_t i)
{
    return (const struct team *)teams->list.items + i;
}

static inline const struct named_secret *team_link_secrets(const struct team *team)
{
    return team->link_secrets.items;
}

/* The team of that name, or NULL. */
const struct team *teams_by_name(const struct teams *teams, const char *name);

/* The team with that token, or NULL. Takes the same time in both cases. */
const struct team *teams_by_token(const struct teams *teams, const char *token, size_t len);

bool team_may_use(const struct team *team, const struct provider *provider);

/* Whether `origin` (the header's value) is listed: by that team, or by any. */
bool team_has_origin(const struct team *team, const char *origin);
bool teams_have_origin(const struct teams *teams, const char *origin);

#endif

/* ownership: see ownership.h. */
#include "access/ownership.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uthash.h>

enum {
    OWNERSHIP_MAX = 65536,
    OWNER_KEY_SIZE = 65 + IDENTITY_SIZE, /* names of accounts have at most 64 characters */
    RENEW_MS = 24 * 60 * 60 * 1000
};

#define KEPT_MS_TEXT "2592000000"

/* KEYS: the owner. ARGV: the claiming team, the time to live in ms. Returns the owner; nil if the team has
 * just become it; the error if the task has no owner and Redis rejects the write. */
static const char claim_script[] =
    "local owner=redis.call('GET',KEYS[1]) "
    "if not owner then local set=redis.pcall('SET',KEYS[1],ARGV[1],'PX',ARGV[2]) return set.err and set end "
    "if owner==ARGV[1] then redis.pcall('PEXPIRE',KEYS[1],ARGV[2]) end return owner";

/* The owner of one task. */
struct owner {
    char key[OWNER_KEY_SIZE]; /* "ACCOUNT:IDENTITY" */
    const struct team *team;  /* (ref) NULL: a team that is not in the file any more */
    int64_t confirmed_ms;     /* when it was last set (monotonic) */
    UT_hash_handle hh;
};

struct ownership {
    const struct conf *conf;  /* (ref) */
    struct redis *redis;      /* (ref) */
    struct owner *table;      /* the least recently used task comes first */
    struct log_once nameless; /* providers whose answers have no identity */
};

struct ownership *ownership_new(const struct conf *conf, struct redis *redis)
{
    struct ownership *ownership = xcalloc(1, sizeof(*ownership));
    *ownership = (struct ownership){.conf = conf, .redis = redis};
    return ownership;
}

static void forget(struct ownership *ownership, struct owner *owner)
{
    HASH_DEL(ownership->table, owner);
    free(owner);
}

void ownership_free(struct ownership *ownership)
{
    if (ownership == NULL)
        return;
    while (ownership->table != NULL)
        forget(ownership, ownership->table);
    free(ownership);
}

/* ---- the cache of owners ---- */

static void write_key(const struct claim *claim, char key[static OWNER_KEY_SIZE])
{
    snprintf(key, OWNER_KEY_SIZE, "%s:%s", conf_account(claim->task->route->upstream), claim->identity);
}

/* Moves the owner to the end of the table, as the most recently used. */
static struct owner *recall(const struct claim *claim)
{
    struct ownership *ownership = claim->ownership;
    char key[OWNER_KEY_SIZE];
    struct owner *owner;
    write_key(claim, key);
    HASH_FIND_STR(ownership->table, key, owner);
    if (owner == NULL)
        return NULL;
    HASH_DEL(ownership->table, owner);
    HASH_ADD_STR(ownership->table, key, owner);
    return owner;
}

static struct owner *remember(const struct claim *claim, const struct team *team)
{
    struct ownership *ownership = claim->ownership;
    struct owner *owner = recall(claim);
    if (owner == NULL) {
        if (HASH_COUNT(ownership->table) >= OWNERSHIP_MAX)
            forget(ownership, ownership->table);
        owner = xcalloc(1, sizeof(*owner));
        write_key(claim, owner->key);
        HASH_ADD_STR(ownership->table, key, owner);
    }
    owner->team = team;
    owner->confirmed_ms = monotonic_ms();
    return owner;
}

/* ---- claims ---- */

static void decide(struct claim *claim, const struct team *owner, enum claim_event event)
{
    claim->granted = owner == claim->team;
    claim->event = claim->granted ? event : CLAIM_REFUSED;
}

/* Without an answer from Redis, or if Redis rejects writes, the owner that this worker knows decides. If it
 * knows none, the claim is undecided, because another worker may know one. */
static void decide_alone(struct claim *claim)
{
    const struct owner *owner = recall(claim);
    claim->undecided = owner == NULL;
    claim->granted = false;
    if (owner != NULL)
        decide(claim, owner->team, CLAIM_NO_EVENT);
}

static void on_owner(void *user, const struct redis_reply *reply)
{
    struct claim *claim = user;
    const struct teams *teams = &claim->ownership->conf->teams;
    claim->command = NULL;
    if (reply->result == REDIS_NOTHING)
        decide(claim, remember(claim, claim->team)->team, CLAIM_TAKEN);
    else if (reply->result == REDIS_FOUND && reply->value != NULL)
        decide(claim, remember(claim, teams_by_name(teams, reply->value))->team, CLAIM_CONFIRMED);
    else /* unavailable, or it rejects writes */
        decide_alone(claim);
    claim->on_claimed(claim);
}

static struct redis_command *send_claim(struct claim *claim)
{
    struct ownership *ownership = claim->ownership;
    char owner[OWNER_KEY_SIZE];
    write_key(claim, owner);
    char *key = xasprintf("%s%s#owner", ownership->conf->redis.prefix, owner);
    const char *const words[] = {claim_script, "1", key, claim->team->name, KEPT_MS_TEXT, NULL};
    struct redis_command *command = redis_send(ownership->redis, REDIS_EVAL, words, on_owner, claim);
    free(key);
    return command;
}

/* Whether the cache decides. The owner queries Redis once a day, which renews its claim. */
static bool is_settled(const struct owner *owner, const struct team *team)
{
    return owner != NULL && (owner->team != team || monotonic_ms() - owner->confirmed_ms < RENEW_MS);
}

/* The provider's file names a member that this answer does not have. */
static void refuse_nameless(struct claim *claim)
{
    const struct provider *provider = claim->task->route->provider;
    decide(claim, NULL, CLAIM_NO_EVENT);
    if (log_once(&claim->ownership->nameless, provider->name, 0))
        log_warn("the answer for task %s/%s has no identity at %s; no team may read such tasks",
                 provider->name, task_id(claim->task), ((struct json_path *)provider->identity.items)->text);
}

bool ownership_claim(struct ownership *ownership, struct claim *claim, const struct task *task,
                     const struct snapshot *snapshot, const struct team *team,
                     void (*on_claimed)(struct claim *claim))
{
    *claim = (struct claim){
        .ownership = ownership, .task = task, .team = team, .granted = true, .on_claimed = on_claimed};
    if (ownership->conf->access.ownership == OWNERSHIP_NONE)
        return false;
    memcpy(claim->identity, snapshot->identity, IDENTITY_SIZE);
    if (claim->identity[0] == '\0') {
        refuse_nameless(claim);
        return false;
    }
    const struct owner *owner = recall(claim);
    if (is_settled(owner, team))
        decide(claim, owner->team, CLAIM_NO_EVENT);
    else if ((claim->command = send_claim(claim)) == NULL)
        decide_alone(claim);
    return claim->command != NULL;
}

bool ownership_covers(const struct claim *claim, const struct snapshot *snapshot)
{
    return claim->identity[0] == '\0' || strcmp(claim->identity, snapshot->identity) == 0;
}

void ownership_cancel(struct claim *claim)
{
    redis_cancel(&claim->command);
}

/* ownership: see ownership.h. */
#include "access/ownership.h"

#include <stdlib.h>
#include <string.h>

#include <uthash.h>

enum { OWNERSHIP_MAX = 65536 };

#define KEPT_S_TEXT "2592000"

/* KEYS: the owner. ARGV: the claiming team, the expiry. Returns the owner's name, even if Redis is full or read-only. */
static const char claim_script[] = "local owner=redis.call('GET',KEYS[1]) "
                                   "if owner then redis.pcall('EXPIRE',KEYS[1],ARGV[2]) return owner end "
                                   "redis.call('SET',KEYS[1],ARGV[1],'EX',ARGV[2]) return ARGV[1]";

/* The owner of one task. */
struct owner {
    const struct team *team; /* (ref) NULL: a team that is not in the file any more */
    bool sure;               /* confirmed by Redis; false: Redis was unavailable */
    UT_hash_handle hh;
    size_t key_len;
    char key[];
};

struct ownership {
    const struct conf *conf; /* (ref) */
    struct redis *redis;     /* (ref) */
    struct owner *table;     /* the least recently used task comes first */
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

/* Moves the owner to the end of the table, as the most recently used. */
static struct owner *recall(struct ownership *ownership, const struct task *task)
{
    struct owner *owner;
    HASH_FIND(hh, ownership->table, task->key, task->key_len, owner);
    if (owner == NULL)
        return NULL;
    HASH_DEL(ownership->table, owner);
    HASH_ADD(hh, ownership->table, key, owner->key_len, owner);
    return owner;
}

static struct owner *remember(struct ownership *ownership, const struct task *task, const struct team *team,
                              bool sure)
{
    struct owner *owner = recall(ownership, task);
    if (owner == NULL) {
        if (HASH_COUNT(ownership->table) >= OWNERSHIP_MAX)
            forget(ownership, ownership->table);
        owner = xcalloc(1, sizeof(*owner) + task->key_len + 1);
        owner->key_len = task->key_len;
        memcpy(owner->key, task->key, task->key_len + 1);
        HASH_ADD(hh, ownership->table, key, owner->key_len, owner);
    }
    owner->team = team;
    owner->sure = sure;
    return owner;
}

/* ---- claims ---- */

/* Without Redis: the first team in this worker. */
static void decide_here(struct claim *claim)
{
    const struct owner *owner = recall(claim->ownership, claim->task);
    if (owner == NULL)
        owner = remember(claim->ownership, claim->task, claim->team, false);
    claim->granted = owner->team == claim->team;
}

static void take_owner(struct claim *claim, const char *name)
{
    const struct team *team = teams_by_name(claim->ownership->conf->teams, name);
    remember(claim->ownership, claim->task, team, true);
    claim->granted = team == claim->team;
}

static void on_owner(void *user, const struct redis_reply *reply)
{
    struct claim *claim = user;
    claim->command = NULL;
    if (reply->result == REDIS_FOUND && reply->value != NULL)
        take_owner(claim, reply->value);
    else
        decide_here(claim);
    claim->on_claimed(claim);
}

static struct redis_command *ask_redis(struct ownership *ownership, struct claim *claim)
{
    char *key = xasprintf("%s%s#owner", ownership->conf->redis.prefix, claim->task->key);
    const char *const words[] = {claim_script, "1", key, claim->team->name, KEPT_S_TEXT, NULL};
    struct redis_command *command = redis_send(ownership->redis, REDIS_EVAL, words, on_owner, claim);
    free(key);
    return command;
}

bool ownership_claim(struct ownership *ownership, struct claim *claim, const struct task *task,
                     const struct team *team, void (*on_claimed)(struct claim *claim))
{
    *claim = (struct claim){
        .ownership = ownership, .task = task, .team = team, .granted = true, .on_claimed = on_claimed};
    if (ownership->conf->access.ownership == OWNERSHIP_NONE)
        return false;
    const struct owner *owner = recall(ownership, task);
    if (owner != NULL && owner->sure)
        claim->granted = owner->team == team;
    else if ((claim->command = ask_redis(ownership, claim)) == NULL)
        decide_here(claim);
    return claim->command != NULL;
}

void ownership_cancel(struct claim *claim)
{
    if (claim->command != NULL)
        redis_cancel(claim->command);
    claim->command = NULL;
}

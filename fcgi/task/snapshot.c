/* snapshot: see snapshot.h.
 *
 * The value in Redis is one line, followed by the views.
 *
 *     taskproxy/7 DIGEST STATE CREATED_MS FETCHED_MS TTL_MS URLS_EXPIRE_AT RETRY_AFTER_MS KEY IDENTITY LEN LEN LEN\n
 *
 * KEY is the mark of the key that the query was made with; KEY and IDENTITY are "-" if there is none.
 * TTL_MS is how long Redis keeps the value. What is left of it gives the value's age, by the clock of Redis alone. */
#include "task/snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT "taskproxy/7"

enum { HEAD_MAX = 256, POLL_GROWTH = 8 };

static const int64_t url_margin_ms = 60 * 1000;
static const int64_t retry_after_max_ms = 5 * 60 * 1000;

/* A snapshot of an ended task is fresh for terminal_ttl, but its URLs must still work for a while after it is
 * served. When they are about to expire, the task is fetched again at its shortest poll interval; if they had expired
 * when it was fetched, once a minute. */
static void set_ended_until(struct snapshot *s, const struct snapshot_rules *rules, struct moment now)
{
    s->fresh_until_ms = s->since_ms + rules->terminal_ttl_ms;
    if (s->urls_expire_at == 0)
        return;
    int64_t date_ms = s->urls_expire_at * 1000, expire_ms = now.ms + (date_ms - now.date_ms);
    int64_t least_ms = s->since_ms + (expire_ms <= s->since_ms ? url_margin_ms : rules->poll_min_ms);
    if (expire_ms - url_margin_ms > least_ms)
        s->urls_until_ms = date_ms - url_margin_ms;
    s->fresh_until_ms = min64(s->fresh_until_ms, max64(expire_ms - url_margin_ms, least_ms));
}

/* The interval grows with the age of the task, because a young task changes more often. */
int64_t snapshot_interval_ms(int64_t created_ms, const struct snapshot_rules *rules, int64_t date_ms)
{
    return max64(rules->poll_min_ms, min64((date_ms - created_ms) / POLL_GROWTH, rules->poll_max_ms));
}

static void set_running_until(struct snapshot *s, const struct snapshot_rules *rules)
{
    int64_t interval_ms = snapshot_interval_ms(s->created_ms, rules, s->fetched_ms);
    s->fresh_until_ms = s->since_ms + max64(interval_ms, s->retry_after_ms);
}

static void set_times(struct snapshot *s, const struct snapshot_rules *rules, struct moment now)
{
    s->urls_until_ms = 0;
    if (state_ended(s->state))
        set_ended_until(s, rules, now);
    else
        set_running_until(s, rules);
    s->keep_until_ms = s->fresh_until_ms + rules->stale_for_ms;
}

void etag_of(const void *data, size_t len, char etag[static ETAG_SIZE])
{
    etag[0] = '"';
    sha256_hex(data, len, ETAG_SIZE - 3, etag + 1);
    strcpy(etag + ETAG_SIZE - 2, "\"");
}

/* A copy of the bytes. */
static void set_view(struct view_bytes *view, const struct view_bytes *from)
{
    struct blob *blob = blob_new(from->data, from->len);
    *view = (struct view_bytes){.data = blob->data, .len = blob->len, .whole = {.blob = blob}};
    etag_of(view->data, view->len, view->etag);
}

struct snapshot *snapshot_new(const struct snapshot *draft, const struct snapshot_rules *rules,
                              struct moment now)
{
    struct snapshot *s = xcalloc(1, sizeof(*s));
    *s = *draft;
    s->refs = 1;
    s->retry_after_ms = min64(draft->retry_after_ms, retry_after_max_ms);
    set_view(&s->views[VIEW_NATIVE], &draft->views[VIEW_NATIVE]);
    set_view(&s->views[VIEW_UNIFIED], &draft->views[VIEW_UNIFIED]);
    s->views[VIEW_KEYED] = (struct view_bytes){0};
    if (draft->views[VIEW_KEYED].len > 0) /* most snapshots have none */
        set_view(&s->views[VIEW_KEYED], &draft->views[VIEW_KEYED]);
    set_times(s, rules, now);
    return s;
}

struct snapshot *snapshot_ref(struct snapshot *s)
{
    s->refs++;
    return s;
}

void snapshot_unref(struct snapshot *s)
{
    if (s == NULL || --s->refs > 0)
        return;
    for (size_t i = 0; i < VIEW_COUNT; i++) {
        if (s->views[i].whole.blob != NULL)
            blob_unref(s->views[i].whole.blob);
    }
    free(s);
}

const struct view_bytes *snapshot_view(const struct snapshot *s, enum view_kind kind)
{
    bool empty = kind == VIEW_KEYED && s->views[kind].len == 0;
    return &s->views[empty ? VIEW_UNIFIED : kind];
}

/* The URLs expire on a date. It is looked at again, because the wall clock may have been set, or have run while the
 * loop's clock did not. */
int64_t snapshot_left_ms(const struct snapshot *s, struct moment now)
{
    int64_t left_ms = s->fresh_until_ms - now.ms;
    return s->urls_until_ms != 0 ? min64(left_ms, s->urls_until_ms - now.date_ms) : left_ms;
}

size_t snapshot_bytes(const struct snapshot *s)
{
    size_t bytes = sizeof(*s);
    for (size_t i = 0; i < VIEW_COUNT; i++)
        bytes += s->views[i].whole.blob != NULL ? sizeof(struct blob) + s->views[i].len + 1 : 0;
    return bytes;
}

void snapshot_encode(const struct snapshot *s, const char *digest, int64_t ttl_ms, struct buf *out)
{
    buf_addf(out, "%s %s %s %lld %lld %lld %lld %lld %s %s", FORMAT, digest, state_name(s->state),
             (long long)s->created_ms, (long long)s->fetched_ms, (long long)ttl_ms,
             (long long)s->urls_expire_at, (long long)s->retry_after_ms, s->key[0] ? s->key : "-",
             s->identity[0] ? s->identity : "-");
    for (size_t i = 0; i < VIEW_COUNT; i++)
        buf_addf(out, " %zu", s->views[i].len);
    buf_putc(out, '\n');
    for (size_t i = 0; i < VIEW_COUNT; i++)
        buf_add(out, s->views[i].data, s->views[i].len);
}

/* ---- decoding: the value is untrusted ---- */

/* The next word of the head as a number; -1 if it is none. */
static int64_t next_number(char **rest)
{
    const char *word = strtok_r(NULL, " ", rest);
    int64_t value;
    return word != NULL && parse_int(word, &value) == 0 ? value : -1;
}

/* The next word of the head as hexadecimal digits that fill `out`, or "-" for none. */
static bool read_hex(char **rest, char *out, size_t size)
{
    const char *word = strtok_r(NULL, " ", rest);
    if (word == NULL || strcmp(word, "-") == 0)
        return word != NULL;
    snprintf(out, size, "%s", word);
    return strlen(word) == size - 1 && strspn(word, "0123456789abcdef") == size - 1;
}

static const char *read_head(char *head, const char *digest, struct snapshot *draft, int64_t *ret_ttl_ms)
{
    char *rest;
    const char *format = strtok_r(head, " ", &rest), *made_with = strtok_r(NULL, " ", &rest);
    if (format == NULL || strcmp(format, FORMAT) != 0)
        return "another format";
    if (made_with == NULL || strcmp(made_with, digest) != 0)
        return "another provider file";
    draft->state = state_by_name(strtok_r(NULL, " ", &rest));
    draft->known = true;
    draft->created_ms = next_number(&rest);
    draft->fetched_ms = next_number(&rest);
    *ret_ttl_ms = next_number(&rest);
    draft->urls_expire_at = next_number(&rest);
    draft->retry_after_ms = next_number(&rest);
    bool good_hex = read_hex(&rest, draft->key, sizeof(draft->key)) &&
                    read_hex(&rest, draft->identity, sizeof(draft->identity));
    for (size_t i = 0; i < VIEW_COUNT; i++)
        draft->views[i].len = (size_t)next_number(&rest);
    /* With larger values, sums of times would overflow. */
    const int64_t most = 1LL << 48;
    if (draft->state == STATE_NONE || !good_hex || draft->created_ms < 0 || draft->created_ms > most ||
        draft->fetched_ms < 0 || draft->fetched_ms > most || *ret_ttl_ms < 0 || *ret_ttl_ms > most ||
        draft->urls_expire_at < 0 || draft->urls_expire_at > most / 1000 || draft->retry_after_ms < 0)
        return "a malformed head";
    return NULL;
}

static const char *find_views(const char *at, const char *end, struct snapshot *draft)
{
    for (size_t i = 0; i < VIEW_COUNT; i++) {
        if (draft->views[i].len > (size_t)(end - at))
            return "an incomplete value";
        draft->views[i].data = at;
        at += draft->views[i].len;
    }
    return at == end ? NULL : "an incomplete value";
}

struct snapshot *snapshot_decode(const char *value, size_t len, const struct snapshot_reading *reading,
                                 const char **ret_why)
{
    const char *line_end = memchr(value, '\n', len < HEAD_MAX ? len : HEAD_MAX);
    if (line_end == NULL) {
        *ret_why = "another format";
        return NULL;
    }
    struct snapshot draft = {.state = STATE_NONE};
    int64_t ttl_ms = 0;
    char *head = xstrndup(value, (size_t)(line_end - value));
    *ret_why = read_head(head, reading->digest, &draft, &ttl_ms);
    free(head);
    if (*ret_why == NULL)
        *ret_why = find_views(line_end + 1, value + len, &draft);
    if (*ret_why == NULL && (reading->ttl_ms < 0 || reading->ttl_ms > ttl_ms))
        *ret_why = "unknown age (was the clock of Redis set back?)";
    if (*ret_why != NULL)
        return NULL;
    draft.since_ms = reading->now.ms - (ttl_ms - reading->ttl_ms);
    return snapshot_new(&draft, reading->rules, reading->now);
}
